"""The frozen tower's features of tiles, kept in a file: all arms begin from one tower, so what it says of a tile is
computed once.

A tile is known by the hash of its pixels, so training, validation and questions share the file, and neither the
training package nor the engine needs to know of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import nn
from transformers import SiglipVisionModel
from transformers.modeling_outputs import BaseModelOutputWithPooling

from qsit_plugin.engines.torch_engine import TorchEngine
from qsit_plugin.training.nano.architecture import PATCH, TILE, WIDTH

SHAPE = ((TILE // PATCH) ** 2, WIDTH)
"""Of a tile's features."""

BYTES = 2 * SHAPE[0] * SHAPE[1]
KEY = 16
CHUNK = 32
"""Tiles that go through the tower at once."""

Compute = Callable[[torch.Tensor], torch.Tensor]
"""(N, 3, S, S) -> (N, patches, WIDTH)."""


class TileFeatures:
    """The file: features as float16, one tile after the other, and beside it ``.keys`` with their hashes.

    One process writes at a time. Features are written before their key, so a kill leaves at most some without one,
    which are cut off when it is opened again.
    """

    def __init__(self, path: Path):
        path.parent.mkdir(parents=True, exist_ok=True)
        keys = path.with_suffix(".keys")
        held = keys.read_bytes() if keys.exists() else b""
        whole = len(held) // KEY
        self._values, self._keys = open(path, "a+b"), open(keys, "a+b")  # noqa: SIM115 (closed by close)
        whole = min(whole, path.stat().st_size // BYTES)
        self._values.truncate(whole * BYTES)
        self._keys.truncate(whole * KEY)
        self.places = {held[n * KEY : (n + 1) * KEY]: n for n in range(whole)}

    def __call__(self, pixels: torch.Tensor, compute: Compute) -> torch.Tensor:
        """(N, 3, S, S) -> (N, patches, WIDTH) float32; of tiles that are not known by ``compute``."""
        keys = [hashlib.blake2b(tile.tobytes(), digest_size=KEY).digest() for tile in pixels.half().numpy()]
        fresh = list({key: number for number, key in enumerate(keys) if key not in self.places}.values())
        for start in range(0, len(fresh), CHUNK):
            some = fresh[start : start + CHUNK]
            with torch.no_grad(), torch.autocast("cpu", enabled=False):
                values = compute(pixels[some].float()).half().numpy()
            self._write([keys[number] for number in some], values)
        found = np.stack([self._read(self.places[key]) for key in keys])
        return torch.from_numpy(found).float()

    def close(self) -> None:
        self._values.close()
        self._keys.close()

    def _write(self, keys: list[bytes], values: np.ndarray) -> None:
        self._values.write(values.tobytes())
        self._values.flush()
        self._keys.write(b"".join(keys))
        self._keys.flush()
        for key in keys:
            self.places[key] = len(self.places)

    def _read(self, place: int) -> np.ndarray:
        self._values.seek(place * BYTES)
        return np.frombuffer(self._values.read(BYTES), np.float16).reshape(SHAPE)


def tower_name(tower: nn.Module) -> str:
    """A hash of the weights that features follow from. In bfloat16, as checkpoints are stored: a result has those of
    its base."""
    total = hashlib.sha256()
    for name, weight in sorted(tower.state_dict().items()):
        if "post_layernorm" not in name:  # which comes after the features
            total.update(name.encode() + weight.detach().bfloat16().view(torch.int16).numpy().tobytes())
    return total.hexdigest()[:16]


@contextmanager
def cached_features(folder: Path) -> Iterator[None]:
    """Inside, every vision tower reads its features from ``folder``, a file for each tower, and adds what it lacks.

    Raises ValueError for a tower that is being trained: its features change.
    """
    files: dict[str, TileFeatures] = {}
    names: WeakKeyDictionary[nn.Module, str] = WeakKeyDictionary()
    of_model, of_engine = SiglipVisionModel.forward, TorchEngine.features

    def features(tower: nn.Module) -> TileFeatures:
        if tower not in names:
            names[tower] = tower_name(tower)
        name = names[tower]
        if name not in files:
            files[name] = TileFeatures(folder / f"{name}.features")
        return files[name]

    def forward(self: Any, pixel_values: torch.Tensor, **options: Any) -> BaseModelOutputWithPooling:
        if any(weight.requires_grad for weight in self.parameters()):
            raise ValueError("features are kept of a frozen tower only: leave vision out of the run's parts")

        def compute(pixels: torch.Tensor) -> torch.Tensor:
            return of_model(self, pixels, output_hidden_states=True, return_dict=True).hidden_states[-1]

        found = features(self)(pixel_values, compute)
        return BaseModelOutputWithPooling(last_hidden_state=found, hidden_states=(found,))

    def of_tiles(self: Any, pixels: torch.Tensor) -> torch.Tensor:
        return features(self.hf.model.vision_tower)(pixels, lambda some: of_engine(self, some))

    SiglipVisionModel.forward, TorchEngine.features = forward, of_tiles  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        SiglipVisionModel.forward, TorchEngine.features = of_model, of_engine  # type: ignore[method-assign]
        for file in files.values():
            file.close()
