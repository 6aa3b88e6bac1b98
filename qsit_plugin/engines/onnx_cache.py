"""The KV cache on ONNX Runtime: of an image, and of several rows as one batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .onnx_session import to_value

if TYPE_CHECKING:
    from onnxruntime import OrtValue


@dataclass(frozen=True)
class Prefix:
    """The KV cache of everything up to and including the image; one (keys, values) a layer, each float32 (1, heads,
    length, head size)."""

    length: int
    layers: tuple[tuple[np.ndarray, np.ndarray], ...]


class Cache:
    """Keys and values of B rows, padded on the left where their lengths differ. ``lengths``: int64 (B,), of each row
    without its padding."""

    def __init__(self, values: list[Any], lengths: np.ndarray, visible: np.ndarray):
        """``values``: keys and values of the first layer, then of the next, as ONNX Runtime's values. ``visible``:
        boolean (B, P), False at padding."""
        self._values, self.lengths, self._visible = values, lengths, visible

    @classmethod
    def joined(cls, prefixes: Sequence[Prefix]) -> Cache:
        """A cache that goes on from the prefixes, which are never written to."""
        longest = max(prefix.length for prefix in prefixes)
        lengths = np.array([prefix.length for prefix in prefixes], np.int64)
        layers = zip(*(prefix.layers for prefix in prefixes), strict=True)
        values = [to_value(_padded(part, longest)) for rows in layers for part in zip(*rows, strict=True)]
        return cls(values, lengths, np.arange(longest) >= longest - lengths[:, None])

    def prefix(self) -> Prefix:
        """Of a cache of one row."""
        arrays = [value.numpy() for value in self._values]
        return Prefix(int(self.lengths[0]), tuple(zip(arrays[::2], arrays[1::2], strict=True)))

    def inputs(self) -> dict[str, OrtValue]:
        """By the names of the decoder's inputs."""
        return dict(zip(self._names("past"), self._values, strict=True))

    def outputs(self) -> list[str]:
        """Names of the decoder's outputs, in the order that ``extend`` takes them."""
        return self._names("present")

    def visible(self, new: int) -> np.ndarray:
        """Boolean (B, P + new): which tokens, read and new, are no padding."""
        return np.pad(self._visible, ((0, 0), (0, new)), constant_values=True)

    def extend(self, values: list[Any], new: int) -> None:
        """Take the cache as the decoder returned it, ``new`` tokens longer."""
        self._visible, self.lengths, self._values = self.visible(new), self.lengths + new, values

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these rows only."""
        chosen = list(rows)
        self._values = [to_value(value.numpy()[chosen]) for value in self._values]
        self.lengths, self._visible = self.lengths[chosen], self._visible[chosen]

    def _names(self, when: str) -> list[str]:
        return [f"{when}_{part}_{layer}" for layer in range(len(self._values) // 2) for part in ("key", "value")]


def _padded(rows: Sequence[np.ndarray], longest: int) -> np.ndarray:
    """(1, heads, own length, size) each -> (B, heads, longest, size), zeros on the left."""
    if all(row.shape[2] == longest for row in rows):
        return rows[0] if len(rows) == 1 else np.concatenate(rows)
    return np.concatenate([np.pad(row, ((0, 0), (0, 0), (longest - row.shape[2], 0), (0, 0))) for row in rows])
