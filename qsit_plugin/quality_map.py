"""Where in an image the quality is high or low: scores of overlapping square regions, blended."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from .scores import Score

if TYPE_CHECKING:
    from PIL import Image

    from .model import QSiT


def quality_map(
    model: QSiT,
    picture: Image.Image,
    *,
    window: int | None,
    overlap: float,
    on_region: Callable[[], None] | None = None,
) -> np.ndarray:
    """Float32 (H, W) in [0, 1]: every pixel's blend of the scores of the square regions that cover it.

    Args:
        window: side of a region in pixels; None takes a quarter of the shorter side, but at least one tile.
        overlap: share of a region that its neighbour covers too, 0 to 0.9.
        on_region: called when a region's score is there; what it raises ends the map. Regions are scored in batches.

    Each region is scored as a separate image: a local score, not a share of the whole image's score.
    Raises ValueError for a window or an overlap out of range.
    """
    width, height = picture.size
    side = max(model.engine.tiling.tile, min(width, height) // 4) if window is None else window
    if side < 8:
        raise ValueError(f"window must be at least 8 pixels, got {side}")
    if not 0.0 <= overlap <= 0.9:
        raise ValueError(f"overlap must be between 0 and 0.9, got {overlap}")
    side_x, side_y = min(side, width), min(side, height)
    boxes = [
        (x, y, x + side_x, y + side_y)
        for y in _starts(height, side_y, overlap)
        for x in _starts(width, side_x, overlap)
    ]
    bump = np.outer(_bump(side_y), _bump(side_x))
    total, weight = np.zeros((height, width)), np.zeros((height, width))
    scores = model.iter_scores(picture.crop(box) for box in boxes)
    for (left, top, right, bottom), score in zip(boxes, scores, strict=True):
        assert isinstance(score, Score)  # errors="raise": an unreadable region has raised already
        total[top:bottom, left:right] += score.value * bump
        weight[top:bottom, left:right] += bump
        if on_region is not None:
            on_region()
    return (total / weight).clip(0.0, 1.0).astype(np.float32)


def _starts(length: int, side: int, overlap: float) -> list[int]:
    """Evenly spread starts so that regions cover the whole length and overlap by at least the share asked for."""
    if length == side:
        return [0]
    count = 1 + math.ceil((length - side) / max(1.0, side * (1.0 - overlap)))
    return [round(i * (length - side) / (count - 1)) for i in range(count)]


def _bump(side: int) -> np.ndarray:
    """Weights that fall off towards a region's border without reaching zero, so that every pixel has a weight."""
    return np.sin(np.pi * (np.arange(side) + 0.5) / side) ** 2 + 1e-3
