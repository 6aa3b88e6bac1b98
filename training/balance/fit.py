"""Curves of scoring and accuracy over one share, and the shares that the trials cannot tell from the best.

Two forms are fitted by least squares, and the one with the smaller squared error is taken, anew in every resample:

- a + b x + c x^2, the Scheffé polynomial of a mixture of two;
- a + b log(1 + x / h), of either of the two shares, for a task that has enough of its data soon. It fits a steep end,
  which would bend a quadratic everywhere else.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from qsit_plugin.errors import QSiTError

from .objective import Objective

SCALES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
"""h of the logarithmic form."""
PARAMETERS = 3
DRAWS = 1000
CONFIDENCE = 0.95
STEP = 0.01
"""Between the candidates for the best share."""


class TooFewTrials(QSiTError, ValueError):
    """Not enough different mixtures to fit a curve; the message says how many there must be."""


@dataclass(frozen=True)
class Fit:
    """Curves over a share, and its best value.

    ``shares``: (n,) of the trials; ``figures``: (n, 3) scoring, accuracy and log of score loss / interpret loss.
    ``grid``: (m,) candidates. ``values``: (m, 3) scoring, accuracy and objective at these, and ``draws``: (B, m, 3) the
    same in bootstrap resamples. ``error``: (3,) standard deviation of the residuals. ``losses``: (m,) fitted score loss
    / interpret loss, nan where a trial has none. ``tied``: (m,) bool. ``flat``: whether all inside the grid is tied.
    """

    shares: np.ndarray
    figures: np.ndarray
    grid: np.ndarray
    values: np.ndarray
    draws: np.ndarray
    error: np.ndarray
    losses: np.ndarray
    best: int
    tied: np.ndarray
    flat: bool

    @property
    def middle(self) -> int:
        """Of the candidates that are tied with the best, the one nearest to their mean."""
        shares = self.grid[self.tied]
        return int(np.flatnonzero(self.tied)[np.abs(shares - shares.mean()).round(9).argmin()])

    @property
    def interval(self) -> tuple[float, float]:
        """The lowest and the highest share that are tied with the best."""
        return float(self.grid[self.tied].min()), float(self.grid[self.tied].max())


def fit(
    shares: np.ndarray, figures: np.ndarray, deviations: np.ndarray, tried: Sequence[float], objective: Objective
) -> Fit:
    """Fit trials along a line, and find out how sure that is by a bootstrap, in which the figures of a trial and its
    validation rows, which are the same in all trials, stay together.

    Args:
        shares, figures: of the trials, as in ``Fit``.
        deviations: (n, D, 2) of scoring and accuracy of each trial on other weights of the validation rows.
        tried: the design's shares; candidates are all from the lowest to the highest.

    Raises TooFewTrials for fewer than four different shares.
    """
    different, low, high = len(np.unique(shares)), min(tried), max(tried)
    if different <= PARAMETERS:
        raise TooFewTrials(f"{different} different mixtures are tried, a curve needs {PARAMETERS + 1}")
    grid = np.round(np.linspace(low, high, max(2, round((high - low) / STEP) + 1)), 6)
    curves = fitted(shares, figures, np.append(grid, shares))
    values, at_trials = np.split(_with_objective(curves, objective), [len(grid)])
    # half of the draws resample the trials, half the residuals, made as wide as errors: a fit pulls points to itself
    rows = _resampled(shares)
    places, drawn = shares[rows], figures[rows]
    left = (figures - curves[len(grid) :]) * np.sqrt(len(shares) / (len(shares) - PARAMETERS))
    places[::2], drawn[::2] = shares, curves[len(grid) :] + (left - left.mean(axis=0))[rows[::2]]
    rows[::2] = np.arange(len(shares))
    drawn[..., :2] += deviations[rows, np.arange(DRAWS)[:, None] // 2 % deviations.shape[1]]
    draws = _with_objective(fitted(places, drawn, grid), objective)
    squares = ((objective.extend(figures) - at_trials) ** 2).sum(axis=0)
    error = np.sqrt(squares / (len(shares) - PARAMETERS))
    best = int(values[:, 2].argmax())
    tied = np.mean(draws[:, [best], 2] > draws[:, :, 2], axis=0) < 0.5 + CONFIDENCE / 2
    inside = [share for share in tried if 0 < share < 1]
    flat = bool(tied[(grid >= min(inside) - 1e-9) & (grid <= max(inside) + 1e-9)].all())
    return Fit(shares, figures, grid, values, draws, error, np.exp(curves[: len(grid), 2]), best, tied, flat)


def fitted(shares: np.ndarray, figures: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """Values (..., m, f) at ``grid`` of the best form for figures (..., n, f) at shares (..., n)."""
    least, found = np.array(np.inf), np.array(np.nan)
    for terms, wanted in zip(_forms(shares), _forms(grid), strict=True):
        weights = np.linalg.pinv(terms, rcond=1e-6) @ figures
        error = ((figures - terms @ weights) ** 2).sum(axis=-2, keepdims=True)
        found = np.where(error < least, wanted @ weights, found)
        least = np.minimum(error, least)
    return found


def _forms(x: np.ndarray) -> Iterator[np.ndarray]:
    """Terms (..., n, 2 or 3) of every form at shares (..., n)."""
    yield np.stack([np.ones_like(x), x, x**2], axis=-1)
    for share in (x, 1 - x):
        for scale in SCALES:
            yield np.stack([np.ones_like(x), np.log1p(share / scale)], axis=-1)


def _resampled(shares: np.ndarray) -> np.ndarray:
    """(DRAWS, n) trials drawn with replacement, with enough different shares among them to fit a curve."""
    rng, rows = np.random.default_rng(0), list[np.ndarray]()
    while len(rows) < DRAWS:
        drawn = rng.integers(len(shares), size=len(shares))
        if len(np.unique(shares[drawn])) > PARAMETERS:
            rows.append(drawn)
    return np.array(rows)


def _with_objective(curves: np.ndarray, objective: Objective) -> np.ndarray:
    """Scoring and accuracy held inside what they can be, and the objective."""
    return objective.extend(np.clip(curves[..., :2], (-1.0, 0.0), 1.0))
