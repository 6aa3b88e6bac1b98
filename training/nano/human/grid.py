"""A tower's tokens as maps of a whole photo, tiles side by side, as a convolutional network's maps lie."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from ..architecture import PATCH, TILE
from ..tower import inner_tower
from .efficientnet import pooled


def tiles(crops: torch.Tensor) -> torch.Tensor:
    """(N, S, S, 3) of 0..255 -> (N * tiles, 3, TILE, TILE) of -1..1, row by row."""
    cut = crops.unfold(1, TILE, TILE).unfold(2, TILE, TILE)
    return cut.reshape(-1, 3, TILE, TILE).float() / 127.5 - 1.0


def tower_layers(tower: nn.Module, pixels: torch.Tensor) -> list[torch.Tensor]:
    """The output of every layer, (N, patches, WIDTH) each, without the last normalisation: what the projector reads."""
    inner: Any = inner_tower(tower)
    state, every = inner.embeddings(pixels), []
    for layer in inner.encoder.layers:
        state = layer(state, attention_mask=None)
        every.append(state)
    return every


def on_grid(tokens: torch.Tensor, crops: int, stride: int) -> torch.Tensor:
    """(N * tiles, patches, C * cells) -> (N, C, S / stride, S / stride): tiles side by side, cells in their patch."""
    rows, patches = round((tokens.shape[0] / crops) ** 0.5), TILE // PATCH
    grid = tokens.reshape(crops, rows, rows, patches, patches, -1).permute(0, 5, 1, 3, 2, 4)
    grid = grid.reshape(crops, -1, rows * patches, rows * patches)
    return F.avg_pool2d(grid, stride // PATCH) if stride > PATCH else F.pixel_shuffle(grid, PATCH // stride)


def per_patch(stride: int) -> int:
    """Cells of a map of this stride that lie in one patch of the tower, 1 where a cell is larger."""
    return max(1, PATCH // stride) ** 2


def over_photo(tokens: torch.Tensor, photos: int) -> torch.Tensor:
    """(N * tiles, patches, C) -> (N, 2 C): mean and deviation of every channel over the photo."""
    return pooled([tokens.reshape(photos, -1, tokens.shape[-1]).transpose(1, 2)])
