"""From finished trials to the best mixture: the stages of a design, one fit each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import surface
from .design import Design, Planned, Point, lies_on, on_line, quality_share
from .items import deviations, of_draw
from .objective import Objective, scoring_of
from .surface import Surface
from .trials import Trial

STEP, PLANE_STEP = 0.01, 0.05
"""Between the candidates for the best mixture, on a line and in the triangle."""
QUALITY_STEP = 0.05
"""The first stage's result is rounded to it, so that a trial more does not begin the second stage anew."""
BEGUN = 3
"""Mixtures on a line from which on a second stage has begun there; fewer may be there from another design."""


@dataclass(frozen=True)
class Fit:
    """Surfaces of one stage, and its best mixture.

    ``axis``: which share the stage varies (scoring, or quality within interpreting), None for the triangle.
    ``points``: (n, q) of the trials, ``figures``: (n, 3), see ``figures_of``. ``candidates``: (m, q), ``x``: (m,) along
    the axis. ``values``: (m,) and ``draws``: (B, m) of the objective; ``tied``: (m,) bool.
    """

    axis: str | None
    points: np.ndarray
    figures: np.ndarray
    candidates: np.ndarray
    x: np.ndarray
    scoring: Surface
    accuracy: Surface
    log_lambda: Surface | None
    values: np.ndarray
    draws: np.ndarray
    best: int
    tied: np.ndarray
    flat: bool

    @property
    def point(self) -> Point:
        """The highest point. Where much is tied with it, noise has put it where it is: see ``middle``."""
        return tuple(float(share) for share in self.candidates[self.best])

    @property
    def middle(self) -> int:
        """The candidate in the middle of what is tied with the best: of those tied the one nearest to their mean."""
        tied = np.flatnonzero(self.tied)
        return int(tied[self._distances(self.candidates[tied].mean(axis=0))[tied].argmin()])

    def nearest(self, point: Point) -> int:
        """The candidate nearest to a mixture."""
        return int(self._distances(np.array(point)).argmin())

    def _distances(self, point: np.ndarray) -> np.ndarray:
        return np.round(((self.candidates - point) ** 2).sum(axis=1), 9)  # equal ones stay equal: the first is taken

    def lambda_at(self, candidate: int) -> float | None:
        """Score loss divided by interpret loss."""
        return None if self.log_lambda is None else float(np.exp(self.log_lambda.fit[candidate]))

    @property
    def lambda_l(self) -> float | None:
        """Score loss divided by interpret loss at the best mixture."""
        return self.lambda_at(self.best)

    def interval(self, column: int) -> tuple[float, float]:
        """Lowest and highest share of a group among the candidates that are tied."""
        shares = self.candidates[self.tied, column]
        return float(shares.min()), float(shares.max())

    def axis_interval(self) -> tuple[float, float]:
        return float(self.x[self.tied].min()), float(self.x[self.tied].max())


def figures_of(trials: Sequence[Trial]) -> np.ndarray:
    """(n, 3): scoring, accuracy, and the logarithm of score loss / interpret loss."""
    rows = []
    for trial in trials:
        losses = trial.figures["score_loss"], trial.figures["interpret_loss"]
        ratio = float(np.log(losses[0] / losses[1])) if all(losses) else float("nan")
        rows.append([scoring_of(trial.figures), trial.figures["accuracy"], ratio])
    return np.array(rows, float).reshape(-1, 3)


def first_stage(design: Design, trials: Sequence[Trial], objective: Objective) -> Fit:
    """How much of the interpreting data is to be quality data; from the trials at the first stage's scoring share.

    Raises TooFewTrials.
    """
    planned = set(design.first())  # or else trials of the second stage would change what the first has found
    of_stage = [trial for trial in trials if Planned(trial.point, trial.seed) in planned]
    members = [trial for trial in of_stage if abs(trial.point[0] - design.first_scoring) < 1e-4]
    shares = np.array([quality_share(trial.point) for trial in members])
    x = _between(design.quality_grid)
    candidates = np.array([on_line(design.first_scoring, share) for share in x])
    inside = [share for share in design.quality_grid if 0 < share < 1]
    return _fit("quality", members, shares, candidates, x, objective, inside)


def rounded_quality(fit: Fit) -> float:
    """What the first stage finds: the middle of what is tied with its best share. The best alone is where noise has put
    it, and may be an end, which leaves one kind of data out."""
    return round(round(float(fit.x[fit.middle]) / QUALITY_STEP) * QUALITY_STEP, 6)


def second_line(design: Design, trials: Sequence[Trial], first: Fit) -> float:
    """The share of quality within interpreting at which the second stage goes: what the first finds.

    A second stage that has begun stays where it is as long as that is tied with the first's best: its trials are not
    thrown away for another share that is no better. (Searches of older versions went along the best one.)
    """
    known = set(design.first())
    here = {trial.point for trial in trials if Planned(trial.point, trial.seed) not in known}
    low, high = first.axis_interval()
    begun = {}
    for number in range(round(1 / QUALITY_STEP) + 1):
        quality = round(number * QUALITY_STEP, 6)
        if low - QUALITY_STEP / 2 <= quality <= high + QUALITY_STEP / 2:
            begun[quality] = len(here & {one.point for one in design.second(quality) if one.point[0] < 1})
    most = max(begun, key=lambda quality: begun[quality], default=0.0)
    return most if begun.get(most, 0) >= BEGUN else rounded_quality(first)


def best_mixture(design: Design, trials: Sequence[Trial], objective: Objective) -> tuple[Fit, Fit | None]:
    """The search's result, and its first stage where it has one. Raises TooFewTrials."""
    if design.planar:
        return _plane(trials, objective), None
    inside = [share for share in design.grid if 0 < share < 1]
    x = _between(design.grid)
    if not design.staged:
        shares = np.array([trial.point[0] for trial in trials])
        return _fit("scoring", trials, shares, np.array([on_line(s) for s in x]), x, objective, inside), None
    first = first_stage(design, trials, objective)
    quality = second_line(design, trials, first)
    members = [trial for trial in trials if lies_on(trial.point, quality)]
    shares = np.array([trial.point[0] for trial in members])
    candidates = np.array([on_line(share, quality) for share in x])
    return _fit("scoring", members, shares, candidates, x, objective, inside), first


def _fit(
    axis: str,
    trials: Sequence[Trial],
    shares: np.ndarray,
    candidates: np.ndarray,
    x: np.ndarray,
    objective: Objective,
    inside: Sequence[float],
) -> Fit:
    """Along a line: ``shares`` (n,) and ``x`` (m,) are the places of the trials and the candidates on it."""
    figures = figures_of(trials)
    lines = np.column_stack([shares, 1 - shares]).reshape(-1, 2), np.column_stack([x, 1 - x])
    parts = _surfaces(lines[0], trials, figures, lines[1], objective)
    between = (x >= min(inside) - 1e-9) & (x <= max(inside) + 1e-9)
    flat = bool(np.all(parts["tied"][between]))
    points = np.array([trial.point for trial in trials])
    return Fit(axis, points, figures, candidates, x, **parts, flat=flat)


def _plane(trials: Sequence[Trial], objective: Objective) -> Fit:
    steps = round(1 / PLANE_STEP)
    lattice = [(i, j, steps - i - j) for i in range(steps + 1) for j in range(steps + 1 - i)]
    candidates = np.array(lattice, float) / steps
    points, figures = np.array([trial.point for trial in trials]).reshape(-1, 3), figures_of(trials)
    parts = _surfaces(points, trials, figures, candidates, objective)
    inside = np.all(candidates > 0, axis=1)
    flat = bool(np.all(parts["tied"][inside]))
    return Fit(None, points, figures, candidates, candidates[:, 0], **parts, flat=flat)


def _surfaces(
    points: np.ndarray, trials: Sequence[Trial], figures: np.ndarray, candidates: np.ndarray, objective: Objective
) -> dict[str, Any]:
    known = figures if np.all(np.isfinite(figures)) else figures[:, :2]
    off, _ = deviations(trials)
    shifts = np.zeros((surface.DRAWS, *known.shape))
    shifts[:, :, :2] = off[:, of_draw(surface.DRAWS)].transpose(1, 0, 2)
    scoring, accuracy, *rest = surface.fit_surfaces(points, known, candidates, shifts=shifts)
    scoring, accuracy = scoring.within(-1.0, 1.0), accuracy.within(0.0, 1.0)
    values = objective(scoring.fit, accuracy.fit)
    draws = objective(scoring.draws, accuracy.draws)
    best, tied = surface.tied(values, draws)
    return {
        "scoring": scoring,
        "accuracy": accuracy,
        "log_lambda": rest[0] if rest else None,
        "values": values,
        "draws": draws,
        "best": best,
        "tied": tied,
    }


def _between(grid: Sequence[float]) -> np.ndarray:
    low, high = min(grid), max(grid)
    return np.round(np.linspace(low, high, max(2, round((high - low) / STEP) + 1)), 6)
