"""From the features of an image's tiles to its tokens, with NumPy: what ``TorchEngine.pack`` does with torch, row by
row as the tiles come."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from qsit_plugin.tiling import Tiling


def normalised(tiling: Tiling, tiles: np.ndarray) -> np.ndarray:
    """uint8 (N, 3, S, S) -> float32 that the vision tower takes, equal bit by bit to transformers' PIL route."""
    result = np.empty(tiles.shape, np.float32)
    for channel in range(3):
        np.take(tiling.normalised[channel], tiles[:, channel], out=result[:, channel], mode="clip")
    return result


def packed(
    tiling: Tiling, parts: Iterable[np.ndarray], width: int, height: int, newline: np.ndarray
) -> Iterator[np.ndarray]:
    """One image's projected features -> its tokens, (n, D) pieces in their order: the base view, then rows of patches.

    A piece is given as soon as the tiles that show it are there.

    Args:
        parts: (N, patches, D) of some tiles each, base view first, then row by row.
        newline: (D,), which ends each row.
    """
    rows, columns = tiling.unpadded(width, height)[2:]
    reduced, size, base = tiling.features(width, height), len(newline), tiling.side**2
    place = tiling.feature_index(width, height).reshape(rows, columns)
    low, high, share = between(rows, reduced[0])
    left, right, across = between(columns, reduced[1])
    needed = np.maximum.accumulate(place.max(1, initial=0)[high]) if columns else np.zeros(reduced[0], np.int64)
    features = np.empty((tiling.tile_count(width, height) * base, size), np.float32)
    filled = given = 0
    for part in parts:
        features[filled : filled + len(part) * base] = part.reshape(-1, size)
        if not filled:
            yield features[:base]
        filled += len(part) * base
        ready = int(np.searchsorted(needed, filled))
        if ready > given:
            now = slice(given, ready)
            shown = mixed(features[place[low[now]]], features[place[high[now]]], share[now, None, None])
            shown = mixed(shown[:, left], shown[:, right], across[:, None])
            ends = np.broadcast_to(newline, (len(shown), 1, size))
            yield np.concatenate([shown, ends], 1).reshape(-1, size)
            given = ready


class Pieces:
    """The tokens of an image, piece by piece: each is computed when it is first asked for, and kept for who asks again.

    Several threads may ask. What fails or is interrupted begins anew with the next one who asks.
    """

    def __init__(self, begin: Callable[[], Iterator[np.ndarray]]):
        self._begin: Callable[[], Iterator[np.ndarray]] | None = begin
        self._coming, self._there, self._lock = begin(), list[np.ndarray](), threading.Lock()

    def __iter__(self) -> Iterator[np.ndarray]:
        number = 0
        while (piece := self._piece(number)) is not None:
            yield piece
            number += 1

    def _piece(self, number: int) -> np.ndarray | None:
        with self._lock:
            while self._begin is not None and number >= len(self._there):
                try:
                    piece = next(self._coming, None)
                except BaseException:  # an iterator that raised would seem to be at its end, and the image shorter
                    self._coming, self._there = self._begin(), []
                    raise
                if piece is None:
                    self._begin = None  # and the tiles with it
                else:
                    self._there.append(piece)
            return self._there[number] if number < len(self._there) else None


def regrouped(pieces: Iterable[np.ndarray], count: int) -> Iterator[np.ndarray]:
    """The rows of the pieces in groups of ``count``, the last of what is left: however the pieces were cut."""
    waiting: list[np.ndarray] = []
    for piece in pieces:
        waiting.append(piece)
        if sum(map(len, waiting)) >= count:
            rows = np.concatenate(waiting)
            whole = len(rows) // count * count
            yield from (rows[start : start + count] for start in range(0, whole, count))
            waiting = [rows[whole:]]
    if any(map(len, waiting)):
        yield np.concatenate(waiting)


def between(length: int, wanted: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Bilinear, pixel centres aligned, without antialiasing, as torch's ``interpolate``: for each of the places
    ``wanted`` the two of ``length`` that it lies between, and the share of the second."""
    scale = np.float32(length / wanted) if wanted else np.float32(1)
    place = np.maximum((np.arange(wanted, dtype=np.float32) + np.float32(0.5)) * scale - np.float32(0.5), 0)
    low = np.minimum(place.astype(np.int64), length - 1)
    return low, np.minimum(low + 1, length - 1), (place - low).astype(np.float32)


def mixed(first: np.ndarray, second: np.ndarray, share: np.ndarray) -> np.ndarray:
    """``share`` of the second, the rest of the first."""
    return first * (1 - share) + second * share if share.any() else first
