"""What a search has found: as the content of ratio.yaml and as a few lines to read. Needs finished trials only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..settings_file import ConfigError, parse_overrides
from . import surface
from .analysis import Fit, best_mixture, figures_of, rounded_quality
from .design import Design, Planned, Point
from .objective import Objective, pareto
from .ratio import NAME, Ratio
from .settings import SearchSettings
from .study import read_record, source_shares, token_shares
from .trials import Trial, read_trials

OBJECTIVE_SETTINGS = ("objective", "scoring_weight", "margin")


@dataclass(frozen=True)
class Report:
    """``record``: search.json. ``trials``: those of the design that are finished. ``missing``: how many are not."""

    folder: Path
    record: dict[str, Any]
    design: Design
    objective: Objective
    trials: list[Trial]
    missing: int
    best: Fit
    first: Fit | None
    ratio: Ratio

    @property
    def groups(self) -> list[str]:
        return list(self.record["facts"]["groups"])


def make_report(folder: str | Path, overrides: Sequence[str] = ()) -> Report:
    """Read a search's folder and fit.

    ``overrides``: ``"objective=weighted"`` and the settings that belong to it; everything else is as searched. Raises
    ConfigError for other settings and for too few finished trials.
    """
    folder = Path(folder)
    record = read_record(folder)
    changed = parse_overrides(overrides, "objective=weighted")
    for name in changed:
        if name not in OBJECTIVE_SETTINGS:
            raise ConfigError(f"a report cannot change {name}: only {', '.join(OBJECTIVE_SETTINGS)}")
    settings = SearchSettings(**record["settings"] | changed)
    design = settings.design(len(record["facts"]["groups"]))
    objective = settings.target(record["validation"]["chance"])
    finished = read_trials(folder)
    try:
        best, first = best_mixture(design, finished, objective)
    except surface.TooFewTrials as error:
        raise ConfigError(
            f"{folder}: {error}; {len(finished)} trials are finished: go on with qsit train balance search"
        ) from None
    planned = design.first() + (design.second(rounded_quality(first)) if first is not None else [])
    used, missing = _of_plan(planned, finished)
    content = _content(record, settings, design, objective, used, best, first)
    return Report(folder, record, design, objective, used, missing, best, first, Ratio(folder / NAME, content))


def _of_plan(planned: Sequence[Planned], finished: Sequence[Trial]) -> tuple[list[Trial], int]:
    known = {Planned(trial.point, trial.seed): trial for trial in finished}
    used = [known[one] for one in planned if one in known]
    return used, len(planned) - len(used)


# ---- ratio.yaml ----


def _content(
    record: dict[str, Any],
    settings: SearchSettings,
    design: Design,
    objective: Objective,
    trials: Sequence[Trial],
    best: Fit,
    first: Fit | None,
) -> dict[str, Any]:
    groups, facts = record["facts"]["groups"], record["facts"]
    spread = _noise(trials, objective, best)
    shares = {name: round(share, 6) for name, share in source_shares(groups, record["rows"], best.point).items()}
    metrics: dict[str, Any] = {"optimum": _at_optimum(best)}
    for name, point in design.baselines().items():
        if found := _at_baseline(point, trials, objective, best, spread):
            metrics[name] = found
    content = {
        "share": shares,
        "token_share": {name: _r(share) for name, share in token_shares(shares, record["tokens"]).items()},
        "groups": groups,
        "group_share": dict(zip(groups, map(_r, best.point), strict=True)),
        "tied_interval": {name: list(map(_r, best.interval(i))) for i, name in enumerate(groups)},
        "flat": best.flat,
        "objective": objective.describe(),
        "lambda_L": None if best.lambda_l is None else _r(best.lambda_l),
        "metrics": metrics,
        "pareto": [_pareto_entry(groups, *entry) for entry in pareto_points(trials)],
        "noise": spread,
        "light_model": record["light_model"],
        "budget": {"samples": facts["samples"], "trials": len(trials)},
        "normalize": record["normalize"],
        "mode": settings.mode,
        "seeds": sorted({trial.seed for trial in trials}),
        "data": {"sha256": facts["rows"], "validation_sha256": facts["validation"], **record["validation"]},
        "versions": record["versions"],
        "mapping": "identity",
        "verified": False,
    }
    if first is not None:
        content["first_stage"] = {
            "quality": rounded_quality(first),
            "tied_interval": list(map(_r, first.axis_interval())),
            "flat": first.flat,
        }
    return content


def _at_optimum(best: Fit) -> dict[str, Any]:
    found = {}
    for name, one in (("scoring", best.scoring), ("accuracy", best.accuracy)):
        low, high = one.band()
        found[name] = {"value": _r(one.fit[best.best]), "interval": [_r(low[best.best]), _r(high[best.best])]}
    low, high = np.quantile(best.draws[:, best.best], [0.025, 0.975])
    found["objective"] = {"value": _r(best.values[best.best]), "interval": [_r(low), _r(high)]}
    return found


def _at_baseline(
    point: Point, trials: Sequence[Trial], objective: Objective, best: Fit, spread: dict[str, Any]
) -> dict[str, Any] | None:
    """Means over the seeds, and by how much the optimum is ahead; 95% intervals from the spread of single trials."""
    members = [trial for trial in trials if trial.point == point]
    if not members:
        return None
    figures, top = figures_of(members), best.scoring.fit.max()
    values = objective(figures[:, 0], figures[:, 1], top)
    columns = {"scoring": figures[:, 0], "accuracy": figures[:, 1], "objective": values}
    found: dict[str, Any] = {"trials": len(members)}
    errors = {}
    for name, column in columns.items():
        value = float(column.mean())
        errors[name] = spread["single_trial"][name] / np.sqrt(len(members))
        half = 1.96 * errors[name]
        found[name] = {"value": _r(value), "interval": [_r(value - half), _r(value + half)]}
    ahead = best.values[best.best] - values.mean()
    half = 1.96 * float(np.hypot(best.draws[:, best.best].std(), errors["objective"]))
    found["optimum_ahead"] = {"value": _r(ahead), "interval": [_r(ahead - half), _r(ahead + half)]}
    return found


def _noise(trials: Sequence[Trial], objective: Objective, best: Fit) -> dict[str, Any]:
    """How far single trials scatter: measured where mixtures have several seeds, else by the distance from the curves;
    and what the number of validation rows alone would give."""
    points, figures = np.array([trial.point for trial in trials]), figures_of(trials)[:, :2]
    values = objective(figures[:, 0], figures[:, 1], best.scoring.fit.max())
    measured = surface.noise(points, np.column_stack([figures, values]))
    names, replicated = ("scoring", "accuracy", "objective"), bool(np.all(np.isfinite(measured)))
    if not replicated:
        off = [best.scoring.error, best.accuracy.error, float(best.draws[:, best.best].std())]
        measured = np.array(off)
    counts = trials[0].figures["counts"]
    return {
        "single_trial": {name: _r(value) for name, value in zip(names, measured, strict=True)},
        "measured_by": "seeds" if replicated else "distance from the curves",
        "curve_error": {"scoring": _r(best.scoring.error), "accuracy": _r(best.accuracy.error)},
        "by_validation_size": {
            "srcc": _r(surface.srcc_error(float(best.scoring.fit[best.best]), counts["score"])),
            "accuracy": _r(
                surface.accuracy_error(float(np.clip(best.accuracy.fit[best.best], 0, 1)), counts["choices"])
            ),
        },
    }


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


# ---- lines ----


def report_lines(report: Report) -> Iterator[str]:
    """The result in ten lines at most."""
    content, best = report.ratio.content, report.best
    counts, metrics, noise = report.record["validation"], content["metrics"], content["noise"]
    left = f", {report.missing} more to come" if report.missing else ""
    yield (
        f"{len(report.trials)} trials of {content['budget']['samples']:,} rows{left}; {content['light_model']}; "
        f"validated on {counts['ratings']:,} ratings and {counts['choices']:,} choices (chance {counts['chance']:.1%})"
    )
    head = "".join(f"{name:>9}" for name in report.groups)
    yield f"{'':<10}{head}{'(SRCC+PLCC)/2':>24}{'accuracy':>24}{report.objective.name:>24}"
    points = {"optimum": best.point, **report.design.baselines()}
    for name, found in metrics.items():
        shares = "".join(f"{share:>9.0%}" for share in points[name])
        yield f"{name:<10}{shares}" + "".join(_cell(found[key]) for key in ("scoring", "accuracy", "objective"))
    yield _tied_line(report)
    yield "shares " + ", ".join(
        f"{name} {share:.1%} ({content['token_share'][name]:.1%} of supervised tokens)"
        for name, share in content["share"].items()
    )
    one, size = noise["single_trial"], noise["by_validation_size"]
    yield (
        f"noise of one trial (by {noise['measured_by']}): scoring {one['scoring']:.3f}, accuracy "
        f"{one['accuracy']:.3f}; by the validation's size alone: SRCC {size['srcc']:.3f}, accuracy "
        f"{size['accuracy']:.3f}"
    )
    told = [f"{_slashed(point)} {scoring:.3f} {right:.3f}" for point, scoring, right in pareto_points(report.trials)]
    yield f"Pareto set ({'/'.join(report.groups)}, scoring, accuracy): " + "; ".join(told)
    if content["lambda_L"] is not None:
        yield f"lambda_L {content['lambda_L']:.3f} (score loss / interpret loss at the optimum)"


def _tied_line(report: Report) -> str:
    best, told = report.best, []
    for number, name in enumerate(report.groups):
        low, high = best.interval(number)
        told.append(f"{name} {low:.0%} to {high:.0%}")
    line = f"tied with the best at 95%: {', '.join(told)}"
    if best.flat:
        line += ": a flat optimum, these trials prefer no mixture inside the grid to another"
    if report.first is not None:
        low, high = report.first.axis_interval()
        quality = report.ratio.content["first_stage"]["quality"]
        flat = ", flat" if report.first.flat else ""
        line += f"; first stage: {quality:.0%} of the interpreting is quality ({low:.0%} to {high:.0%} tied{flat})"
    ahead = {name: found.get("optimum_ahead") for name, found in report.ratio.content["metrics"].items()}
    within = [name for name, one in ahead.items() if one and one["interval"][0] <= 0]
    if within:
        line += f"; not better than {' and '.join(within)} beyond noise"
    return line


def _slashed(point: Point) -> str:
    return "/".join(f"{share:.0%}" for share in point)


def _cell(found: dict[str, Any]) -> str:
    low, high = found["interval"]
    return f"{found['value']:>8.3f} [{low:.3f}, {high:.3f}]".rjust(24)
