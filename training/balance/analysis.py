"""From finished trials to the mixture that a search writes down: one fit for each stage, and the choice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .design import Design, Point, mixture, quality_share
from .fit import Fit, fit
from .noise import deviations, figures_of
from .objective import Objective
from .ratio import MIDDLE, PUBLISHED, PUBLISHED_SCORING
from .trials import Trial

QUALITY_STEP = 0.05
"""The first stage's result is rounded to it, so that a trial more does not begin the second stage anew."""
BEGUN = 3
"""Mixtures on a line from which on a second stage has begun there."""


@dataclass(frozen=True)
class Found:
    """``quality``: share of quality within the interpreting data; it and ``first`` are None with two groups. ``point``:
    the chosen mixture, by the rule ``chosen_by``; ``candidate``: of ``best``, nearest to it."""

    first: Fit | None
    quality: float | None
    best: Fit
    point: Point
    chosen_by: str
    candidate: int


def find(design: Design, trials: Sequence[Trial], objective: Objective) -> Found:
    """Fit all stages and choose. Not the best share itself: where the curves are nearly level, noise decides where they
    are highest, and that may be at an end, which leaves a task out.

    - Not flat: of all candidates that are tied with the best, the one nearest to their mean.
    - Flat: the published mixture, as nothing speaks against it. Where the first stage was not flat, the published share
      of scoring at the share of quality that the first stage has found.
    - Flat, but with the published mixture outside of what is tied, as with a grid that does not reach it: the middle.

    Raises TooFewTrials.
    """
    first, quality, members = None, None, list(trials)
    if design.staged:
        first = first_stage(design, trials, objective)
        quality = second_line(design, trials, first)
        members = [one for one in trials if np.allclose(one.point, mixture(one.point[0], quality), rtol=0, atol=1e-4)]
    best = _fit([trial.point[0] for trial in members], members, design.grid, objective)
    published = design.baselines["published"]
    candidate = int(np.abs(best.grid - published[0]).argmin())
    if not best.flat or not best.tied[candidate]:
        return Found(first, quality, best, mixture(float(best.grid[best.middle]), quality), MIDDLE, best.middle)
    if first is None or first.flat:
        return Found(first, quality, best, published, PUBLISHED, candidate)
    return Found(first, quality, best, mixture(published[0], quality), PUBLISHED_SCORING, candidate)


def first_stage(design: Design, trials: Sequence[Trial], objective: Objective) -> Fit:
    """How much of the interpreting data is to be quality data; by the trials at the first stage's scoring share. Raises
    TooFewTrials."""
    planned = set(design.first())  # or else trials of the second stage would change what the first has found
    of_stage = [trial for trial in trials if (trial.point, trial.seed) in planned]
    members = [trial for trial in of_stage if abs(trial.point[0] - design.first_scoring) < 1e-4]
    return _fit([quality_share(trial.point) for trial in members], members, design.quality_grid, objective)


def second_line(design: Design, trials: Sequence[Trial], first: Fit) -> float:
    """The share of quality at which the second stage goes: the middle of what is tied with the first stage's best.

    A second stage that has begun stays where it is as long as that is tied: its trials are not thrown away for another
    share that is no better, as when seeds are added.
    """
    low, high = first.interval
    planned = set(design.first())
    points = {one.point for one in trials if (one.point, one.seed) not in planned and one.point[0] < 1}
    lines = [_stepped(quality_share(point)) for point in points]
    tied = sorted(line for line in lines if low - QUALITY_STEP / 2 <= line <= high + QUALITY_STEP / 2)
    begun = max(tied, key=tied.count, default=0.0)
    return begun if tied.count(begun) >= BEGUN else _stepped(float(first.grid[first.middle]))


def _fit(shares: Sequence[float], trials: Sequence[Trial], tried: tuple[float, ...], objective: Objective) -> Fit:
    return fit(np.array(shares, float), figures_of(trials), deviations(trials), tried, objective)


def _stepped(share: float) -> float:
    return round(round(share / QUALITY_STEP) * QUALITY_STEP, 6)
