"""The weights of a checkpoint as float32 arrays, without torch."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from qsit_plugin.weights.errors import WeightsError, refusing
from qsit_plugin.weights.folder import weight_files
from qsit_plugin.weights.headers import stored_tensors

_WIDTHS = {"F64": "<f8", "F32": "<f4", "F16": "<f2"}


def read_float32(folder: Path, names: Collection[str]) -> dict[str, np.ndarray]:
    """The named tensors of a checkpoint's safetensors files, read file by file.

    float16 and bfloat16 are widened exactly; float64 is rounded, as torch rounds it.

    Raises:
        WeightsError: a file is broken, a tensor is missing, holds no floats, or holds numbers that are not finite.
    """
    from safetensors import deserialize

    stored_tensors(folder)  # a file that is longer than its tensors, by gigabytes perhaps, is not read whole
    found: dict[str, np.ndarray] = {}
    for path in weight_files(folder):
        with refusing(f"{path} is broken"):
            tensors = deserialize(path.read_bytes())
            while tensors:  # one after the other, so that no tensor is held in both forms for longer than it takes
                name, about = tensors.pop()
                if name in names:
                    found[name] = _float32(about)
    missing = sorted(set(names) - found.keys())
    if missing:
        raise WeightsError(f"{folder} lacks weights that its ONNX graphs take (first: {missing[0]}); copy it again")
    damaged = [name for name, values in found.items() if not _is_finite(values)]
    if damaged:
        raise WeightsError(
            f"the weights of {folder} are damaged: {len(damaged)} of them hold numbers that are not finite "
            f"(first: {damaged[0]}); download or copy the checkpoint again"
        )
    return found


def _float32(about: dict[str, Any]) -> np.ndarray:
    """``about``: dtype, shape and data of a tensor, as safetensors gives them."""
    if about["dtype"] in ("BF16", "bfloat16"):  # the upper half of a float32, and no type of NumPy's
        bits = np.frombuffer(about["data"], "<u2").astype(np.uint32)
        bits <<= 16
        values = bits.view(np.float32)
    else:
        values = np.frombuffer(about["data"], _WIDTHS[about["dtype"]]).astype(np.float32)
    return values.reshape(about["shape"])


def _is_finite(values: np.ndarray) -> bool:
    with np.errstate(all="ignore"):
        return bool(np.isfinite(values.sum()) or np.isfinite(values).all())  # a sum may overflow where no number does
