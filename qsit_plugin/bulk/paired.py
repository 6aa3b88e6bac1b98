"""Two runs over the same images, compared image by image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

SAMPLES = 1000


@dataclass(frozen=True)
class Paired:
    """``mean`` of B - A over ``count`` images, and ``better``: the share in which B is higher, ties counted half. Both
    with percentile bootstrap intervals of 95 % over the images."""

    count: int
    mean: float
    mean_interval: tuple[float, float]
    better: float
    better_interval: tuple[float, float]


def paired(a: Sequence[float], b: Sequence[float], *, seed: int = 0) -> Paired:
    """Compare scores of the same images, in the same order.

    The images are drawn again with replacement, each with both of its scores: what is hard in an image is in both, and
    drops out of the difference. Raises ValueError for lengths that differ, and for fewer than two images.
    """
    difference = np.asarray(b, dtype=float) - np.asarray(a, dtype=float) if len(a) == len(b) else np.empty(0)
    count = len(difference)
    if count < 2:
        raise ValueError(f"{len(a)} and {len(b)} scores: two runs are compared over at least two images of both")
    wins = (np.sign(difference) + 1) / 2
    rng = np.random.default_rng(seed)
    means = np.empty((SAMPLES, 2))
    for row in means:
        drawn = rng.integers(count, size=count)
        row[:] = difference[drawn].mean(), wins[drawn].mean()
    (low, better_low), (high, better_high) = np.percentile(means, [2.5, 97.5], axis=0).tolist()
    return Paired(count, float(difference.mean()), (low, high), float(wins.mean()), (better_low, better_high))
