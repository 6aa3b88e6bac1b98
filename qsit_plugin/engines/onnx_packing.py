"""From the features of an image's tiles to its tokens, with NumPy: what ``TorchEngine.pack`` does with torch."""

from __future__ import annotations

import numpy as np

from qsit_plugin.tiling import Tiling


def normalised(tiling: Tiling, tiles: np.ndarray) -> np.ndarray:
    """uint8 (N, 3, S, S) -> float32 that the vision tower takes, equal bit by bit to transformers' PIL route."""
    result = np.empty(tiles.shape, np.float32)
    for channel in range(3):
        np.take(tiling.normalised[channel], tiles[:, channel], out=result[:, channel], mode="clip")
    return result


def packed(tiling: Tiling, features: np.ndarray, width: int, height: int, newline: np.ndarray) -> np.ndarray:
    """One image's projected features (1 + rows * columns, patches, D) -> its tokens (n, D).

    ``newline``: (D,), which ends each row of patches.
    """
    rows, columns = tiling.unpadded(width, height)[2:]
    size = features.shape[-1]
    picture = features.reshape(-1, size)[tiling.feature_index(width, height)].reshape(rows, columns, size)
    reduced = tiling.features(width, height)
    if reduced != (rows, columns):
        picture = _resized(_resized(picture, reduced[0], axis=0), reduced[1], axis=1)
    ends = np.broadcast_to(newline, (len(picture), 1, size))
    return np.concatenate([features[0], np.concatenate([picture, ends], 1).reshape(-1, size)])


def _resized(values: np.ndarray, length: int, *, axis: int) -> np.ndarray:
    """Bilinear along one axis, pixel centres aligned, without antialiasing: torch's ``interpolate``."""
    scale = np.float32(values.shape[axis] / length)
    place = np.maximum((np.arange(length, dtype=np.float32) + np.float32(0.5)) * scale - np.float32(0.5), 0)
    low = np.minimum(place.astype(np.int64), values.shape[axis] - 1)
    high = np.minimum(low + 1, values.shape[axis] - 1)
    share = (place - low).reshape([-1 if axis == other else 1 for other in range(values.ndim)]).astype(np.float32)
    return values.take(low, axis) * (1 - share) + values.take(high, axis) * share
