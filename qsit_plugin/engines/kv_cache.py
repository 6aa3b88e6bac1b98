"""The KV cache on torch: of an image, and of several rows as one batch, preallocated for the tokens to come."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

SPARE = 64
"""Tokens of room that a cache gets for an answer, and again when it is full."""


@dataclass(frozen=True)
class Prefix:
    """The KV cache of everything up to and including the image; one (keys, values) a layer, each (1, heads, length,
    head size)."""

    length: int
    layers: tuple[tuple[torch.Tensor, torch.Tensor], ...]


class GrowingLayer(DynamicLayer):
    """A preallocated cache layer: a step writes one token where DynamicLayer copies all of them."""

    def __init__(self, rows: Sequence[tuple[torch.Tensor, torch.Tensor]], length: int, room: int):
        """``rows``: (keys, values) of each, (1, heads, own length, head size), padded with zeros on the left up to
        ``length``; ``room``: tokens to come."""
        super().__init__()
        self._whole = [
            torch.cat([functional.pad(row, (0, 0, length - row.shape[-2], room)) for row in part])
            for part in zip(*rows, strict=True)
        ]
        self._show(length)
        self.is_initialized, self.dtype, self.device = True, self.keys.dtype, self.keys.device

    def update(self, keys: torch.Tensor, values: torch.Tensor, *args: Any, **options: Any) -> Any:
        start = self.keys.shape[-2]
        end = start + keys.shape[-2]
        if end > self._whole[0].shape[-2]:
            self._whole = [functional.pad(part, (0, 0, 0, end - start + SPARE)) for part in (self.keys, self.values)]
        self._whole[0][..., start:end, :], self._whole[1][..., start:end, :] = keys, values
        self._show(end)
        return self.keys, self.values

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        self._whole = [part[indices] for part in self._whole]
        self._show(self.keys.shape[-2])

    def _show(self, length: int) -> None:
        self.keys, self.values = (part[..., :length, :] for part in self._whole)


def joined(prefixes: Sequence[Prefix], room: int) -> tuple[DynamicCache, torch.Tensor | None, torch.Tensor]:
    """One cache of B rows, padded on the left where their lengths differ; its mask (B, longest), and lengths (B,).

    ``room``: tokens that are to follow; more are taken, too. The prefixes are copied, so that they stay as they are.
    """
    longest, device = max(prefix.length for prefix in prefixes), prefixes[0].layers[0][0].device
    cache = DynamicCache()
    layers = zip(*(prefix.layers for prefix in prefixes), strict=True)
    cache.layers = [GrowingLayer(rows, longest, room) for rows in layers]
    lengths = torch.tensor([prefix.length for prefix in prefixes], device=device)
    if all(prefix.length == longest for prefix in prefixes):
        return cache, None, lengths
    mask = torch.arange(longest, device=device) >= longest - lengths[:, None]
    return cache, mask.long(), lengths
