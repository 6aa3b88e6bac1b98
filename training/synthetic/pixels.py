"""RGB images as float arrays and back."""

from __future__ import annotations

import numpy as np
from PIL import Image

TILE = 128
"""Side of a region, in pixels: what nano sees at once."""

LUMA = np.array([0.299, 0.587, 0.114], np.float32)


def to_float(image: Image.Image) -> np.ndarray:
    """Float32 (H, W, 3) in [0, 1]."""
    return np.asarray(image, np.float32) / 255.0


def to_image(array: np.ndarray) -> Image.Image:
    """RGB image of a float (H, W, 3) array; values are clipped to [0, 1] and rounded."""
    return Image.fromarray((array.clip(0.0, 1.0) * 255.0 + 0.5).astype(np.uint8))


def shifted(array: np.ndarray, down: int, right: int) -> np.ndarray:
    """(H, W, …) moved by whole pixels; what is uncovered repeats the border."""
    rows = (np.arange(array.shape[0]) - down).clip(0, array.shape[0] - 1)
    columns = (np.arange(array.shape[1]) - right).clip(0, array.shape[1] - 1)
    return array[rows][:, columns]
