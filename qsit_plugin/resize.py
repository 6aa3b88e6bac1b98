"""Pillow's antialiased bicubic resize of bytes, on any device: the same integers."""

from __future__ import annotations

import re
from functools import lru_cache

import numpy as np
import PIL
import torch

PRECISION_BITS = 32 - 8 - 2
"""Binary places of Pillow's fixed-point resize weights for 8-bit images."""

PILLOW = tuple(int(part) for part in re.findall(r"\d+", PIL.__version__)[:2])
"""The installed Pillow, (major, minor): newer ones resize some tall images in another order, with other roundings."""


def resize_exact(image: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Pillow's antialiased bicubic resize of uint8 (…, H, W), in integers, on any device: difference 0.

    Pillow filters in one direction, rounds to 8 bits, then filters in the other; a direction that keeps its size is
    skipped. Which comes first is decided as the installed Pillow decides it.
    """
    if image.dtype != torch.uint8 or image.ndim < 2 or 0 in image.shape:
        raise ValueError(f"resize_exact needs uint8 (…, H, W) with pixels, got {image.dtype} {tuple(image.shape)}")
    if height < 1 or width < 1:
        raise ValueError(f"an image needs at least one pixel, got a target of {width}x{height}")
    first = vertical_first(image.shape[-2], image.shape[-1], height, width)
    for vertical in (first, not first):
        if vertical and image.shape[-2] != height:
            image = _filter_rows(image.contiguous(), height)
        elif not vertical and image.shape[-1] != width:
            image = _filter_rows(image.transpose(-1, -2).contiguous(), width).transpose(-1, -2)
    return image.clone(memory_format=torch.contiguous_format)


def vertical_first(old_height: int, old_width: int, height: int, width: int, pillow: tuple[int, ...] = PILLOW) -> bool:
    """Whether Pillow resizes vertically first: never before 12.2, very tall images in 12.2 and 12.3, and since 13.0
    wherever the height loses more than twice as many pixels as the width (found by comparing the results)."""
    if height >= old_height or pillow < (12, 2):
        return False
    if pillow < (13, 0):
        return old_height > 100 * old_width
    return old_height - height > 2 * (old_width - width)


def _filter_rows(image: torch.Tensor, size: int) -> torch.Tensor:
    """Resize the last axis but one to ``size``: each new row a weighted sum of old rows, in 32-bit integers."""
    rows, weights = _taps(image.shape[-2], size, image.device)
    shape, half = (*image.shape[:-2], size, image.shape[-1]), 1 << (PRECISION_BITS - 1)
    total = torch.full(shape, half, dtype=torch.int32, device=image.device)
    for tap in range(rows.shape[0]):
        total.addcmul_(image.index_select(-2, rows[tap]).to(torch.int32), weights[tap][:, None])
    return (total >> PRECISION_BITS).clamp_(0, 255).to(torch.uint8)


@lru_cache(maxsize=128)
def _taps(old: int, new: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Source rows (taps, new) int64 and fixed-point weights (taps, new) int32 for one direction of a resize.

    The arithmetic follows Pillow's in double precision and in its order, since the weights are then truncated.
    """
    scale = old / new
    stretch = max(scale, 1.0)
    support = 2.0 * stretch
    centre = (np.arange(new) + 0.5) * scale
    first = np.maximum(np.trunc(centre - support + 0.5), 0).astype(np.int64)
    last = np.minimum(np.trunc(centre + support + 0.5), old).astype(np.int64)
    offsets = np.arange(int((last - first).max()))
    rows = first[:, None] + offsets
    weights = _bicubic((offsets + first[:, None] - centre[:, None] + 0.5) * (1.0 / stretch))
    weights[rows >= last[:, None]] = 0.0
    sums = np.cumsum(weights, axis=1)[:, -1:]  # one after the other, unlike np.sum
    weights = weights / np.where(sums == 0.0, 1.0, sums)
    fixed = np.trunc(weights * (1 << PRECISION_BITS) + np.copysign(0.5, weights)).astype(np.int32)
    rows = np.minimum(rows, old - 1)  # beyond the edge only where the weight is 0
    return torch.from_numpy(rows.T.copy()).to(device), torch.from_numpy(fixed.T.copy()).to(device)


def _bicubic(x: np.ndarray) -> np.ndarray:
    """The cubic convolution kernel with a = -0.5."""
    a, x = -0.5, np.abs(x)
    near = ((a + 2.0) * x - (a + 3.0)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1.0, near, np.where(x < 2.0, far, 0.0))
