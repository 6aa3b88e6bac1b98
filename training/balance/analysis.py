"""From finished trials to the best mixture: the stages of a design, one fit each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import surface
from .design import Design, Planned, Point, lies_on, on_line, quality_share
from .objective import Objective, scoring_of
from .surface import Surface
from .trials import Trial

STEP, PLANE_STEP = 0.01, 0.05
"""Between the candidates for the best mixture, on a line and in the triangle."""
QUALITY_STEP = 0.05
"""The first stage's result is rounded to it, so that a trial more does not begin the second stage anew."""
FIGURES = ("scoring", "accuracy", "log_lambda")


@dataclass(frozen=True)
class Fit:
    """Surfaces of one stage, and its best mixture.

    ``axis``: which share the stage varies (scoring, or quality within interpreting), None for the triangle.
    ``points``: (n, q) of the trials, ``figures``: (n, 3) as in ``FIGURES``. ``candidates``: (m, q), ``x``: (m,) along
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
        return tuple(float(share) for share in self.candidates[self.best])

    @property
    def lambda_l(self) -> float | None:
        """Score loss divided by interpret loss at the best mixture."""
        return None if self.log_lambda is None else float(np.exp(self.log_lambda.fit[self.best]))

    def interval(self, column: int) -> tuple[float, float]:
        """Lowest and highest share of a group among the candidates that are tied."""
        shares = self.candidates[self.tied, column]
        return float(shares.min()), float(shares.max())

    def axis_interval(self) -> tuple[float, float]:
        return float(self.x[self.tied].min()), float(self.x[self.tied].max())


def figures_of(trials: Sequence[Trial]) -> np.ndarray:
    """(n, 3) as in ``FIGURES``."""
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
    """What the second stage takes from the first: its best share; the middle of what is tied where that is everything,
    as the best is then noise and may be an end, which leaves one kind of data out."""
    share = sum(fit.axis_interval()) / 2 if fit.flat else float(fit.x[fit.best])
    return round(round(share / QUALITY_STEP) * QUALITY_STEP, 6)


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
    quality = rounded_quality(first)
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
    parts = _surfaces(lines[0], figures, lines[1], objective)
    low, high = x[parts["tied"]].min(), x[parts["tied"]].max()
    flat = bool(low <= min(inside) + 1e-9 and high >= max(inside) - 1e-9)
    points = np.array([trial.point for trial in trials])
    return Fit(axis, points, figures, candidates, x, **parts, flat=flat)


def _plane(trials: Sequence[Trial], objective: Objective) -> Fit:
    steps = round(1 / PLANE_STEP)
    lattice = [(i, j, steps - i - j) for i in range(steps + 1) for j in range(steps + 1 - i)]
    candidates = np.array(lattice, float) / steps
    points, figures = np.array([trial.point for trial in trials]).reshape(-1, 3), figures_of(trials)
    parts = _surfaces(points, figures, candidates, objective)
    inside = np.all(candidates > 0, axis=1)
    flat = bool(np.all(parts["tied"][inside]))
    return Fit(None, points, figures, candidates, candidates[:, 0], **parts, flat=flat)


def _surfaces(points: np.ndarray, figures: np.ndarray, candidates: np.ndarray, objective: Objective) -> dict[str, Any]:
    known = figures if np.all(np.isfinite(figures)) else figures[:, :2]
    scoring, accuracy, *rest = surface.fit_surfaces(points, known, candidates)
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
