"""How well a level distribution agrees with the shares of human votes: Brier score, expected calibration error."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from qsit_plugin.protocol import LEVELS


def brier(probabilities: ArrayLike, shares: ArrayLike) -> float:
    """Mean over images of the squared distance between level probabilities and vote shares, in [0, 2]; 0 is perfect.

    Both (N, 5), excellent to bad, rows summing to 1. Raises ValueError for anything else.
    """
    p, q = _pair(probabilities, shares)
    return float(np.mean(np.sum((p - q) ** 2, axis=1)))


def expected_calibration_error(probabilities: ArrayLike, shares: ArrayLike, bins: int = 10) -> float:
    """Classwise expected calibration error, in [0, 1]; 0 is perfect. Inputs as for ``brier``.

    For every level the images are put into bins by its predicted probability; a bin's error is the gap between mean
    probability and mean vote share, weighted by its images; the five levels are averaged. The bins are adaptive
    (equally many images, equal predictions never parted): most predictions for "bad" and "excellent" are near 0, so
    that bins of equal width would put nearly all images into one and hide what happens inside it.

    Where shares come from few votes, chance alone gives a small value above 0: about 0.8 times the standard error of a
    bin's mean share.
    """
    p, q = _pair(probabilities, shares)
    if bins < 1:
        raise ValueError(f"bins must be at least 1, got {bins}")
    return float(np.mean([_binned_gap(p[:, level], q[:, level], bins) for level in range(len(LEVELS))]))


def _binned_gap(predicted: np.ndarray, observed: np.ndarray, bins: int) -> float:
    edges = np.unique(np.quantile(predicted, np.linspace(0.0, 1.0, bins + 1)[1:-1], method="higher"))
    number = np.searchsorted(edges, predicted, side="right")
    # a bin's images times its gap of means is the gap of its sums
    return float(np.abs(np.bincount(number, weights=predicted - observed)).sum() / len(predicted))


def _pair(probabilities: ArrayLike, shares: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    p, q = np.asarray(probabilities, dtype=float), np.asarray(shares, dtype=float)
    _distributions("probabilities", p)
    _distributions("vote shares", q)
    if len(p) != len(q):
        raise ValueError(f"{len(p)} rows of probabilities, {len(q)} of vote shares: they must be the same images")
    return p, q


def _distributions(name: str, values: np.ndarray) -> None:
    if values.ndim != 2 or values.shape[1] != len(LEVELS) or not len(values):
        raise ValueError(f"{name} must have shape (N, {len(LEVELS)}), {LEVELS[0]} to {LEVELS[-1]}; got {values.shape}")
    bad = ~((values >= 0.0).all(axis=1) & (np.abs(values.sum(axis=1) - 1.0) < 1e-3))  # NaN is bad, too
    if bad.any():
        first = int(np.argmax(bad))
        raise ValueError(
            f"{name} must be at least 0 and sum to 1; row {first} does not: {values[first].tolist()} "
            f"({bad.sum()} such rows)"
        )
