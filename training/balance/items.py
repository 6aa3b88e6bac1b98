"""How far figures would be off on other validation rows of the same kind: the sampling error of ratings and questions.

Every trial answers the same rows. So each keeps its figures on 200 re-weightings of the images (the Bayesian bootstrap,
Rubin 1981; with all rows of an image together), and the weights are the same in all trials. In the difference of two
mixtures what both find hard then cancels, and what only one of them finds hard does not.

The scatter of seeds, which is added to this, has some of it in it already: that by which an answer depends on the seed.
This part is counted twice, so intervals are rather too wide than too narrow, by a factor of at most sqrt(2).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from . import surface

if TYPE_CHECKING:
    from ..validation import Answers
    from .trials import Trial

DRAWS = 200
MEASURED = "re-weighted validation rows"
BY_FORMULA = "formulas, as trials of an older version do not hold more; the same error at all mixtures"
PSEUDO = (1.0, 1.0, 0.0, 0.0)
"""Two right and two wrong answers beside the real ones, as in Agresti and Coull's interval: 30 right answers of 30 do
not mean that there is no error."""


def reweighted(answers: Answers) -> dict[str, list[float]]:
    """What a trial keeps: ``scoring`` and ``accuracy``, ``DRAWS`` values each, JSON-ready."""
    from qsit_plugin.evaluation.figures import LEAST

    from ..validation import targets_of

    place = {image: number for number, image in enumerate(answers.images)}
    weights = np.random.default_rng(0).exponential(size=(DRAWS, len(place) + len(PSEUDO)))
    found = []
    for source in dict.fromkeys(one.row.source for one in answers.rated):
        members = [one for one in answers.rated if one.row.source == source]
        predicted, target = np.array([one.value for one in members]), targets_of(members)
        if len(members) >= LEAST and np.ptp(predicted) > 0 and np.ptp(target) > 0:
            found.append(weighted_scoring(predicted, target, weights[:, [place[one.row.image] for one in members]]))
    right = np.array([one.right(answers.rule) for one in answers.choices], float)
    asked = weights[:, [place[one.question.image] for one in answers.choices]]
    accuracy = weighted_accuracy(right, asked, weights[:, len(place) :])
    scoring = np.mean(found, axis=0) if found else np.zeros(DRAWS)
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


def deviations(trials: Sequence[Trial]) -> tuple[np.ndarray, str]:
    """By how much scoring and accuracy of trials move from one choice of validation rows to the next.

    Returns (n, ``DRAWS``, 2), of mean 0 in every trial, and where it is from. Trials of older versions hold no such
    figures: there it is the standard error by formulas, taken to be the same at all mixtures, so that it cancels in
    differences. That is too little where mixtures find different questions hard, and all that such trials tell.
    """
    kept = [trial.reweighted for trial in trials]
    whole = [one for one in kept if one is not None and {len(one["scoring"]), len(one["accuracy"])} == {DRAWS}]
    if trials and len(whole) == len(trials):
        values = np.array([[one["scoring"], one["accuracy"]] for one in whole]).transpose(0, 2, 1)
        return values - values.mean(axis=1, keepdims=True), MEASURED
    normal = np.random.default_rng(0).standard_normal((DRAWS, 2))
    normal = (normal - normal.mean(axis=0)) / normal.std(axis=0)
    return np.array([normal * _standard_errors(trial) for trial in trials]).reshape(-1, DRAWS, 2), BY_FORMULA


def of_draw(draws: int) -> np.ndarray:
    """Which of the ``DRAWS`` each of ``draws`` resamples of the trials goes with, (draws,)."""
    return np.arange(draws) // 2 % DRAWS


def _standard_errors(trial: Trial) -> np.ndarray:
    from .objective import scoring_of

    counts, accuracy = trial.figures["counts"], float(np.clip(trial.figures["accuracy"], 0, 1))
    right, total = accuracy * counts["choices"] + 2, counts["choices"] + 4  # Agresti and Coull's
    errors = (
        surface.srcc_error(scoring_of(trial.figures), counts["score"]),
        surface.accuracy_error(right / total, total),
    )
    return np.array(errors)


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
