"""The headers of a checkpoint's safetensors files: names, shapes and dtypes, without reading a weight."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from qsit_plugin.errors import WeightsError
from qsit_plugin.weights.folder import weight_files

FLOATS = ("F64", "F32", "F16", "BF16")
"""What weights are read from, as safetensors names it."""


@dataclass(frozen=True)
class Stored:
    """A tensor in a file: its dtype as safetensors names it, and its shape."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Numbers that it holds."""
        return math.prod(self.shape)


def stored_tensors(folder: Path) -> dict[str, Stored]:
    """Every tensor of a checkpoint's files by its name.

    Raises WeightsError for a file that is broken, and for a tensor that holds no floats: integers and 8-bit floats are
    weights of a quantized checkpoint, and would be taken for the numbers that they stand for.
    """
    from safetensors import SafetensorError, safe_open

    found = {}
    for path in weight_files(folder):
        try:
            with safe_open(path, "np") as file:
                for name in file.keys():  # noqa: SIM118 (a safetensors file is not a mapping)
                    about = file.get_slice(name)
                    found[name] = Stored(about.get_dtype(), tuple(about.get_shape()))
                    if found[name].dtype not in FLOATS:
                        raise WeightsError(
                            f"{path}: {name} holds {found[name].dtype}; weights are read from {', '.join(FLOATS)}. "
                            "Take the checkpoint as it was before it was quantized"
                        )
        except (SafetensorError, OSError) as error:
            raise WeightsError(f"{path} is broken ({error}); download or copy it again") from error
    return found
