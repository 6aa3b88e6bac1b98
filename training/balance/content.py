"""What ratio.yaml says of a search: the chosen mixture, figures with intervals, noise, and where it is all from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import surface
from .analysis import Fit, figures_of, second_line
from .choice import Choice
from .design import Design, Point
from .items import deviations, of_draw
from .objective import Objective, pareto
from .study import source_shares, token_shares
from .trials import Trial

NAMES = ("scoring", "accuracy", "objective")
LIMITS = {"scoring": (-1.0, 1.0), "accuracy": (0.0, 1.0), "objective": (-np.inf, np.inf)}


@dataclass(frozen=True)
class Found:
    """``record``: search.json. ``trials``: those of the design that are finished. ``best``, ``first``: the fits."""

    record: dict[str, Any]
    design: Design
    objective: Objective
    trials: tuple[Trial, ...]
    best: Fit
    first: Fit | None
    choice: Choice

    @property
    def top(self) -> float:
        """The scoring that the objective constrained compares with."""
        return float(self.best.scoring.fit.max())


@dataclass(frozen=True)
class Noise:
    """``sd``: (3,) of single trials, in the order of ``NAMES``, known with ``free`` degrees of freedom; ``by``: how."""

    sd: np.ndarray
    free: float
    by: str


def ratio_content(found: Found, mode: str) -> dict[str, Any]:
    """JSON-ready."""
    record, best, choice, trials = found.record, found.best, found.choice, found.trials
    groups, facts = record["facts"]["groups"], record["facts"]
    noise = _noise(found)
    shares = {name: round(share, 6) for name, share in source_shares(groups, record["rows"], choice.point).items()}
    metrics = {"optimum": _on_curves(found, best.best), "chosen": _at_choice(found, noise)}
    for name, point in found.design.baselines().items():
        if members := [trial for trial in trials if trial.point == point]:
            metrics[name] = _measured(found, members, noise) | _ahead(found, members, noise)
    lambda_l = _lambda(found)
    content = {
        "share": shares,
        "chosen_by": choice.by,
        "token_share": {name: _r(share) for name, share in token_shares(shares, record["tokens"]).items()},
        "groups": groups,
        "group_share": dict(zip(groups, map(_r, choice.point), strict=True)),
        "tied_interval": {name: list(map(_r, best.interval(i))) for i, name in enumerate(groups)},
        "flat": best.flat,
        "optimum_share": dict(zip(groups, map(_r, best.point), strict=True)),
        "objective": found.objective.describe(),
        "lambda_L": None if lambda_l is None else _r(lambda_l),
        "metrics": metrics,
        "pareto": [_pareto_entry(groups, *entry) for entry in pareto_points(trials)],
        "noise": _noise_content(found, noise),
        "light_model": record["light_model"],
        "budget": {"samples": facts["samples"], "trials": len(trials)},
        "normalize": record["normalize"],
        "mode": mode,
        "seeds": sorted({trial.seed for trial in trials}),
        "data": {"sha256": facts["rows"], "validation_sha256": facts["validation"], **record["validation"]},
        "versions": record["versions"],
        "mapping": "identity",
        "verified": False,
    }
    if found.first is not None:
        content["first_stage"] = {
            "quality": second_line(found.design, trials, found.first),
            "tied_interval": list(map(_r, found.first.axis_interval())),
            "flat": found.first.flat,
        }
    return content


# ---- figures ----


def _on_curves(found: Found, candidate: int) -> dict[str, Any]:
    """At a candidate; intervals from the resamples, in which trials, residuals and validation rows vary."""
    best, told = found.best, {}
    for name, one in (("scoring", best.scoring), ("accuracy", best.accuracy)):
        low, high = one.band()
        told[name] = {"value": _r(one.fit[candidate]), "interval": [_r(low[candidate]), _r(high[candidate])]}
    low, high = np.quantile(best.draws[:, candidate], [0.025, 0.975])
    told["objective"] = {"value": _r(best.values[candidate]), "interval": [_r(low), _r(high)]}
    return told


def _at_choice(found: Found, noise: Noise) -> dict[str, Any]:
    """Of the chosen mixture: by its trials where it is a baseline, which may be off the line of the curves."""
    members = [trial for trial in found.trials if trial.point == found.choice.point]
    if found.choice.point in found.design.baselines().values() and members:
        return _measured(found, members, noise)
    return _on_curves(found, found.choice.candidate)


def _measured(found: Found, members: Sequence[Trial], noise: Noise) -> dict[str, Any]:
    """Means of trials of one mixture; 95% intervals from the scatter of single trials and the choice of rows."""
    told: dict[str, Any] = {"trials": len(members)}
    means, shifted = _means(found, members)
    for name, value, shifts, sd in zip(NAMES, means, shifted.T, noise.sd, strict=True):
        half = surface.half_interval([(sd**2 / len(members), noise.free), (shifts.var(), np.inf)])
        low, high = np.clip([value - half, value + half], *LIMITS[name])
        told[name] = {"value": _r(value), "interval": [_r(low), _r(high)]}
    return told


def _ahead(found: Found, members: Sequence[Trial], noise: Noise) -> dict[str, Any]:
    """By how much the objective of the chosen mixture is above that of a baseline's trials. The validation rows are the
    same on both sides, and so are their weights in each resample."""
    if members[0].point == found.choice.point:
        return {}
    means, shifted = _means(found, members)
    ours = _at_choice(found, noise)
    if "trials" in ours:
        others = [trial for trial in found.trials if trial.point == found.choice.point]
        values, moved = _means(found, others)
        value, unsure = values[2], moved[:, 2] - shifted[:, 2]
        parts = [(noise.sd[2] ** 2 / len(others), noise.free), (unsure.var(), np.inf)]
    else:
        value, column = found.best.values[found.choice.candidate], found.best.draws[:, found.choice.candidate]
        parts = [((column - shifted[of_draw(len(column)), 2]).var(), np.inf)]
    half = surface.half_interval([*parts, (noise.sd[2] ** 2 / len(members), noise.free)])
    ahead = value - means[2]
    return {"chosen_ahead": {"value": _r(ahead), "interval": [_r(ahead - half), _r(ahead + half)]}}


def _means(found: Found, members: Sequence[Trial]) -> tuple[np.ndarray, np.ndarray]:
    """(3,) means over trials, in the order of ``NAMES``, and (DRAWS, 3) the same on other weights of the rows."""
    figures, (off, _) = figures_of(members)[:, :2], deviations(members)
    moved = figures[:, None] + off
    values = found.objective(figures[:, 0], figures[:, 1], found.top)
    shifted = found.objective(moved[..., 0], moved[..., 1], found.top)
    return np.append(figures.mean(axis=0), values.mean()), np.column_stack([moved.mean(axis=0), shifted.mean(axis=0)])


def _lambda(found: Found) -> float | None:
    """At the chosen mixture, as ``_at_choice``."""
    members = [trial for trial in found.trials if trial.point == found.choice.point]
    if found.choice.point in found.design.baselines().values() and members:
        logs = figures_of(members)[:, 2]
        return float(np.exp(logs.mean())) if np.all(np.isfinite(logs)) else None
    return found.best.lambda_at(found.choice.candidate)


# ---- noise ----


def _noise(found: Found) -> Noise:
    """How far single trials scatter: measured where mixtures have several seeds, else by the curves' distance."""
    points, figures = np.array([trial.point for trial in found.trials]), figures_of(found.trials)[:, :2]
    values = found.objective(figures[:, 0], figures[:, 1], found.top)
    if free := surface.freedom(points):
        return Noise(surface.noise(points, np.column_stack([figures, values])), free, "seeds")
    best = found.best
    off = np.array([best.scoring.error, best.accuracy.error, float(best.draws[:, best.best].std())])
    return Noise(off, np.inf, "distance from the curves")


def _noise_content(found: Found, noise: Noise) -> dict[str, Any]:
    best, candidate, counts = found.best, found.choice.candidate, found.trials[0].figures["counts"]
    off, by = deviations(found.trials)
    rows = np.sqrt(off.var(axis=1).mean(axis=0))
    accuracy = float(np.clip(best.accuracy.fit[candidate], 0, 1))
    return {
        "single_trial": {name: _r(value) for name, value in zip(NAMES, noise.sd, strict=True)},
        "measured_by": noise.by,
        "curve_error": {"scoring": _r(best.scoring.error), "accuracy": _r(best.accuracy.error)},
        "validation_rows": {"scoring": _r(rows[0]), "accuracy": _r(rows[1])},
        "validation_rows_by": by,
        "by_validation_size": {
            "srcc": _r(surface.srcc_error(float(best.scoring.fit[candidate]), counts["score"])),
            "accuracy": _r(surface.accuracy_error(accuracy, counts["choices"])),
        },
    }


# ---- the Pareto set ----


def pareto_points(trials: Sequence[Trial]) -> list[tuple[Point, float, float]]:
    """Mixtures (means over seeds) than which no other scores and interprets better, most scoring first."""
    points = sorted({trial.point for trial in trials}, reverse=True)
    means = [figures_of([trial for trial in trials if trial.point == point]).mean(axis=0)[:2] for point in points]
    best = pareto([(float(one[0]), float(one[1])) for one in means])
    return [(points[i], float(means[i][0]), float(means[i][1])) for i in best]


def _pareto_entry(groups: Sequence[str], point: Point, scoring: float, accuracy: float) -> dict[str, Any]:
    return {**dict(zip(groups, map(_r, point), strict=True)), "srcc_plcc": _r(scoring), "accuracy": _r(accuracy)}


def _r(value: float) -> float:
    return round(float(value), 4)
