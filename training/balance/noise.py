"""How far figures would be off with other seeds and on other validation rows: standard errors and intervals.

Every trial answers the same rows. So each keeps its figures on 200 re-weightings of the images (the Bayesian bootstrap,
Rubin 1981; all rows of an image together), and the weights are the same in all trials: what all mixtures find hard
cancels in their differences, and what only one of them finds hard does not. The part of an answer that depends on the
seed is in the scatter of seeds as well and counted twice, so intervals are too wide rather than too narrow, by a factor
of at most sqrt(2).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .fit import CONFIDENCE, DRAWS, Fit
from .objective import Objective, scoring_of

if TYPE_CHECKING:
    from ..validation.measure import Answers
    from .trials import Trial

NAMES = ("scoring", "accuracy", "objective")
WEIGHTINGS = 200
PSEUDO = (1.0, 1.0, 0.0, 0.0)
"""Two right and two wrong answers beside the real ones, as in Agresti and Coull's interval: 30 right answers of 30 do
not mean that there is no error."""


# ---- figures of trials ----


def figures_of(trials: Sequence[Trial]) -> np.ndarray:
    """(n, 3): scoring, accuracy, and the logarithm of score loss / interpret loss, nan where one of them is missing."""
    rows = []
    for figures in (trial.figures for trial in trials):
        losses = figures["score_loss"], figures["interpret_loss"]
        rows.append(
            [scoring_of(figures), figures["accuracy"], np.log(losses[0] / losses[1]) if all(losses) else np.nan]
        )
    return np.array(rows, float).reshape(-1, 3)


def deviations(trials: Sequence[Trial]) -> np.ndarray:
    """(n, ``WEIGHTINGS``, 2): by how much scoring and accuracy of trials move from one weighting of the validation rows
    to the next, of mean 0 in every trial. 0 for trials of older versions, which do not hold it."""
    found = np.zeros((len(trials), WEIGHTINGS, 2))
    for number, trial in enumerate(trials):
        if trial.reweighted is not None:
            found[number] = np.transpose([trial.reweighted["scoring"], trial.reweighted["accuracy"]])
    return found - found.mean(axis=1, keepdims=True)


def scatter(trials: Sequence[Trial], objective: Objective) -> tuple[np.ndarray, int]:
    """Standard deviation (3,) of single trials of one mixture with different seeds, in the order of ``NAMES``, pooled
    over mixtures, and its degrees of freedom; nan and 0 where no mixture has two seeds."""
    values = objective.extend(figures_of(trials))
    _, mixture = np.unique([trial.point for trial in trials], axis=0, return_inverse=True)
    means = np.array([values[mixture == number].mean(axis=0) for number in range(mixture.max() + 1)])
    free = len(values) - len(means)
    return np.sqrt(((values - means[mixture]) ** 2).sum(axis=0) / free) if free else np.full(3, np.nan), free


# ---- estimates of a mixture ----


@dataclass(frozen=True)
class Estimate:
    """Figures of a mixture, in the order of ``NAMES``.

    ``values``: (3,). ``draws``: (DRAWS, 3) on other weights of the validation rows, for a curve also on other trials.
    ``error``: (3,) standard error by the seeds, known with ``free`` degrees of freedom, beside that of ``draws``.
    ``trials``: how many were averaged; None for a point of the curves.
    """

    values: np.ndarray
    draws: np.ndarray
    error: np.ndarray
    free: float
    trials: int | None = None

    def half_interval(self) -> np.ndarray:
        """(3,) half of the 95% interval of each figure."""
        return half_interval([(self.error**2, self.free), (self.draws.var(axis=0), np.inf)])

    def ahead(self, other: Estimate) -> tuple[float, float, float]:
        """By how much the objective is above another's, half of the 95% interval of that (Welch's, with the validation
        rows, which are the same on both sides), and the standard error by the draws alone."""
        rows = (self.draws - other.draws)[:, 2].std()
        parts = [(one.error[2] ** 2, one.free) for one in (self, other)]
        return float(self.values[2] - other.values[2]), float(half_interval([*parts, (rows**2, np.inf)])), float(rows)


def measured(trials: Sequence[Trial], objective: Objective, sd: np.ndarray, free: float) -> Estimate:
    """The mean over trials of one mixture; ``sd`` and ``free`` as ``scatter`` gives them."""
    figures = figures_of(trials)[:, :2]
    draws = objective.extend(figures[:, None] + deviations(trials)).mean(axis=0)
    values = objective.extend(figures).mean(axis=0)
    rows = np.arange(DRAWS) // 2 % WEIGHTINGS  # as in the draws of a fit
    return Estimate(values, draws[rows], sd / np.sqrt(len(trials)), free, len(trials))


def on_curves(fit: Fit, candidate: int) -> Estimate:
    return Estimate(fit.values[candidate], fit.draws[:, candidate], np.zeros(3), np.inf)


def half_interval(parts: Sequence[tuple[Any, float]]) -> np.ndarray:
    """Half of the 95% interval of a sum of independent estimates.

    ``parts``: variances of each and the degrees of freedom that they are known with (inf: known exactly). Student's t
    with Satterthwaite's degrees of freedom, as in Welch's test; nan where a variance is.
    """
    from scipy.stats import t

    total = sum(np.asarray(variance) for variance, _ in parts)
    unsure = sum(np.asarray(variance) ** 2 / max(free, 1) for variance, free in parts)
    freedom = np.clip(total**2 / np.maximum(unsure, 1e-300), 1.0, 1e9)
    return t.ppf(0.5 + CONFIDENCE / 2, freedom) * np.sqrt(total)


# ---- re-weighted validation rows ----


def reweighted(answers: Answers) -> dict[str, list[float]]:
    """What a trial keeps: ``scoring`` and ``accuracy``, ``WEIGHTINGS`` values each, JSON-ready."""
    from qsit_plugin.evaluation.figures import LEAST

    from ..validation.measure import targets_of

    place = {image: number for number, image in enumerate(answers.images)}
    weights = np.random.default_rng(0).exponential(size=(WEIGHTINGS, len(place) + len(PSEUDO)))
    found = []
    for source in dict.fromkeys(one.row.source for one in answers.rated):
        members = [one for one in answers.rated if one.row.source == source]
        predicted, target = np.array([one.value for one in members]), targets_of(members)
        if len(members) >= LEAST and np.ptp(predicted) > 0 and np.ptp(target) > 0:
            found.append(weighted_scoring(predicted, target, weights[:, [place[one.row.images[0]] for one in members]]))
    right = np.array([one.right(answers.rule) for one in answers.choices], float)
    asked = weights[:, [place[one.question.image] for one in answers.choices]]
    accuracy = weighted_accuracy(right, asked, weights[:, len(place) :])
    scoring = np.mean(found, axis=0) if found else np.zeros(WEIGHTINGS)
    return {"scoring": scoring.round(5).tolist(), "accuracy": accuracy.round(5).tolist()}


def weighted_scoring(predicted: np.ndarray, target: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(SRCC + PLCC) / 2 of (n,) scores and ratings, neither all equal, under weights (B, n). Returns (B,)."""
    weights = weights / weights.sum(axis=1, keepdims=True)
    by_rank = _correlation(_ranks(predicted, weights), _ranks(target, weights), weights)
    return (by_rank + _correlation(predicted, target, weights)) / 2


def weighted_accuracy(right: np.ndarray, weights: np.ndarray, pseudo: np.ndarray) -> np.ndarray:
    """Share of right answers (n,) under weights (B, n), with those of the ``PSEUDO`` answers (B, 4). Returns (B,)."""
    both = np.column_stack([weights, pseudo])
    return both @ np.concatenate([right, PSEUDO]) / both.sum(axis=1)


def _ranks(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(n,), (B, n) -> (B, n): the weight of all that is lower, and half the weight of what is equal."""
    _, group = np.unique(values, return_inverse=True)
    order = np.argsort(group, kind="stable")
    starts = np.searchsorted(group[order], np.arange(group.max() + 1))
    sums = np.add.reduceat(weights[:, order], starts, axis=1)
    return (np.cumsum(sums, axis=1) - sums / 2)[:, group]


def _correlation(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Pearson's, of (n,) or (B, n) each under weights (B, n) that sum to 1. Returns (B,)."""
    x, y = np.broadcast_to(x, weights.shape), np.broadcast_to(y, weights.shape)
    x = x - (weights * x).sum(axis=1, keepdims=True)
    y = y - (weights * y).sum(axis=1, keepdims=True)
    return (weights * x * y).sum(axis=1) / np.sqrt((weights * x**2).sum(axis=1) * (weights * y**2).sum(axis=1))
