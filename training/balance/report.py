"""What a search has found: as the content of ratio.yaml and as a few lines to read. Needs finished trials only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..settings_file import ConfigError
from .analysis import MIDDLE, PUBLISHED, PUBLISHED_SCORING, Found, find
from .design import Design, Point, mixture
from .fit import PARAMETERS, TooFewTrials
from .noise import NAMES, Estimate, deviations, figures_of, measured, on_curves, scatter
from .objective import Objective
from .ratio import NAME, Ratio
from .settings import SearchSettings
from .study import read_record, source_shares
from .trials import Trial, read_trials

LIMITS = [-1.0, 0.0, -np.inf], [1.0, 1.0, np.inf]
"""Of the figures, in the order of ``NAMES``."""
NOT_KEPT = "nothing: trials of an older version do not hold it, intervals leave it out"
CHOSEN = {
    MIDDLE: "the middle of that",
    PUBLISHED: "the published mixture, as nothing speaks for another",
    PUBLISHED_SCORING: "the published share of scoring, as nothing speaks for another",
}


@dataclass(frozen=True)
class Report:
    """``record``: search.json. ``trials``: those of the design that are finished; ``missing``: how many are not."""

    record: dict[str, Any]
    design: Design
    objective: Objective
    trials: tuple[Trial, ...]
    missing: int
    found: Found
    ratio: Ratio

    @property
    def groups(self) -> list[str]:
        return list(self.record["facts"]["groups"])


def make_report(folder: str | Path) -> Report:
    """Read a search's folder and fit. Raises ConfigError for a folder of another search and too few finished trials."""
    folder = Path(folder)
    record, finished = read_record(folder), read_trials(folder)
    settings = _settings(folder, record["settings"])
    design, objective = settings.design(len(record["facts"]["groups"])), settings.target(record["validation"]["chance"])
    try:
        found = find(design, finished, objective)
    except TooFewTrials as error:
        raise ConfigError(
            f"{folder}: {error}; {len(finished)} trials are finished: go on with qsit train balance search"
        ) from None
    planned = design.first() + (design.second(found.quality) if found.quality is not None else [])
    known = {(trial.point, trial.seed): trial for trial in finished}
    trials = tuple(known[one] for one in planned if one in known)
    content = ratio_content(record, design, objective, trials, found)
    missing = len(planned) - len(trials)
    return Report(record, design, objective, trials, missing, found, Ratio(folder / NAME, content))


def _settings(folder: Path, kept: dict[str, Any]) -> SearchSettings:
    for name, stays in (("mode", "paper"), ("objective", "harmonic")):
        if kept.get(name, stays) != stays:
            raise ConfigError(
                f"{folder} is of a search with {name}: {kept[name]}, which was removed: search again with {name}: "
                f"{stays} and the same output, its trials are kept"
            )
    return SearchSettings(**{name: value for name, value in kept.items() if name not in ("scoring_weight", "margin")})


# ---- ratio.yaml ----


def ratio_content(
    record: dict[str, Any], design: Design, objective: Objective, trials: Sequence[Trial], found: Found
) -> dict[str, Any]:
    """JSON-ready: the chosen mixture, figures with intervals, noise, and where it is all from."""
    facts, best, first, tokens = record["facts"], found.best, found.first, record["tokens"]
    groups = facts["groups"]
    shares = {name: round(share, 6) for name, share in source_shares(groups, record["rows"], found.point).items()}
    supervised = {name: share * tokens[name] for name, share in shares.items()}
    lambda_l, metrics, noise = _figures_of_all(design, objective, trials, found)
    content = {
        "share": shares,
        "chosen_by": found.chosen_by,
        "token_share": {name: _r(amount / sum(supervised.values())) for name, amount in supervised.items()},
        "groups": groups,
        "group_share": _by_group(groups, found.point),
        "tied_interval": dict(zip(groups, _tied(found), strict=True)),
        "flat": best.flat,
        "optimum_share": _by_group(groups, mixture(best.grid[best.best], found.quality)),
        "objective": {"name": "harmonic", "chance": round(objective.chance, 6)},
        "lambda_L": _r(lambda_l) if np.isfinite(lambda_l) else None,
        "metrics": metrics,
        "pareto": [
            _by_group(groups, point) | {"srcc_plcc": _r(scoring), "accuracy": _r(accuracy)}
            for point, scoring, accuracy in pareto(trials)
        ],
        "noise": noise,
        "light_model": record["light_model"],
        "budget": {"samples": facts["samples"], "trials": len(trials)},
        "normalize": record["normalize"],
        "level_loss": facts["config"]["level_loss"],
        "mode": "paper",
        "seeds": sorted({trial.seed for trial in trials}),
        "data": {"sha256": facts["rows"], "validation_sha256": facts["validation"], **record["validation"]},
        "versions": record["versions"],
        "mapping": "identity",
        "verified": False,
    }
    if first is not None:
        content["first_stage"] = {
            "quality": found.quality,
            "tied_interval": list(map(_r, first.interval)),
            "flat": first.flat,
        }
    return content


def _figures_of_all(
    design: Design, objective: Objective, trials: Sequence[Trial], found: Found
) -> tuple[float, dict[str, Any], dict[str, Any]]:
    """lambda_L, metrics and noise of ratio.yaml."""
    best = found.best
    sd, free = scatter(trials, objective)
    by = "seeds" if free else "distance from the curves"
    if not free:
        sd, free = best.error, len(best.shares) - PARAMETERS
    members = {point: [trial for trial in trials if trial.point == point] for point in design.baselines.values()}
    tried = {point: measured(here, objective, sd, free) for point, here in members.items() if here}
    chosen = tried.get(found.point, on_curves(best, found.candidate))  # a baseline may be off the line of the curves
    metrics = {"optimum": _figures(on_curves(best, best.best)), "chosen": _figures(chosen)}
    for name, point in design.baselines.items():
        if point in tried:
            metrics[name] = _figures(tried[point])
        if point in tried and point != found.point:
            ahead, half, _ = chosen.ahead(tried[point])
            metrics[name]["chosen_ahead"] = {"value": _r(ahead), "interval": [_r(ahead - half), _r(ahead + half)]}
    rows = deviations(trials).var(axis=1).mean(axis=0) ** 0.5
    kept = all(trial.reweighted is not None for trial in trials)
    noise = {
        "single_trial": dict(zip(NAMES, map(_r, sd), strict=True)),
        "measured_by": by,
        "curve_error": dict(zip(NAMES[:2], map(_r, best.error), strict=False)),
        "validation_rows": dict(zip(NAMES[:2], map(_r, rows), strict=True)),
        "validation_rows_by": "re-weighted validation rows" if kept else NOT_KEPT,
    }
    if found.point in tried:
        return float(np.exp(figures_of(members[found.point])[:, 2].mean())), metrics, noise
    return float(best.losses[found.candidate]), metrics, noise


def _figures(one: Estimate) -> dict[str, Any]:
    half = one.half_interval()
    intervals = np.clip([one.values - half, one.values + half], *LIMITS).T
    figures = {
        name: {"value": _r(value), "interval": list(map(_r, interval))}
        for name, value, interval in zip(NAMES, one.values, intervals, strict=True)
    }
    return figures if one.trials is None else {"trials": one.trials, **figures}


def _tied(found: Found) -> list[list[float]]:
    """Of each group the lowest and the highest share among the mixtures that are tied with the best."""
    ends = [mixture(share, found.quality) for share in found.best.interval]
    return [sorted(map(_r, shares)) for shares in zip(*ends, strict=True)]


def pareto(trials: Sequence[Trial]) -> list[tuple[Point, float, float]]:
    """Mixtures (means over seeds) than which no other scores and interprets better, most scoring first."""
    points = sorted({trial.point for trial in trials}, reverse=True)
    means = [figures_of([trial for trial in trials if trial.point == point])[:, :2].mean(axis=0) for point in points]
    beaten = [any(np.all(other >= one) and np.any(other > one) for other in means) for one in means]
    return [
        (point, *map(float, one)) for point, one, is_beaten in zip(points, means, beaten, strict=True) if not is_beaten
    ]


def _by_group(groups: Sequence[str], point: Point) -> dict[str, float]:
    return dict(zip(groups, map(_r, point), strict=True))


def _r(value: float) -> float:
    return round(float(value), 4)


# ---- lines ----


def report_lines(report: Report) -> Iterator[str]:
    """The result in ten lines at most."""
    content, groups = report.ratio.content, report.groups
    counts, metrics, noise = report.record["validation"], content["metrics"], content["noise"]
    left = f", {report.missing} more to come" if report.missing else ""
    yield (
        f"{len(report.trials)} trials of {content['budget']['samples']:,} rows{left}; {content['light_model']}; "
        f"validated on {counts['ratings']:,} ratings and {counts['choices']:,} choices (chance {counts['chance']:.1%})"
    )
    yield (
        f"{'':<10}"
        + "".join(f"{name:>9}" for name in groups)
        + f"{'(SRCC+PLCC)/2':>24}{'accuracy':>24}{'harmonic':>24}"
    )
    points = {"optimum": content["optimum_share"].values(), "chosen": report.found.point, **report.design.baselines}
    for name, figures in metrics.items():
        shares = "".join(f"{share:>9.0%}" for share in points[name])
        yield f"{name:<10}{shares}" + "".join(_cell(figures[key]) for key in NAMES)
    yield _tied_line(report)
    line = "shares " + ", ".join(
        f"{name} {share:.1%} ({content['token_share'][name]:.1%} of supervised tokens)"
        for name, share in content["share"].items()
    )
    if content["lambda_L"] is not None:
        line += f"; lambda_L {content['lambda_L']:.3f} (score loss / interpret loss at the chosen mixture)"
    yield line
    one, rows = noise["single_trial"], noise["validation_rows"]
    yield (
        f"noise of one trial (by {noise['measured_by']}): scoring {one['scoring']:.3f}, accuracy "
        f"{one['accuracy']:.3f}; of the choice of validation rows (by {noise['validation_rows_by']}): scoring "
        f"{rows['scoring']:.3f}, accuracy {rows['accuracy']:.3f}"
    )
    best = (
        "/".join(f"{share:.0%}" for share in point) + f" {one:.3f} {two:.3f}"
        for point, one, two in pareto(report.trials)
    )
    yield f"Pareto set ({'/'.join(groups)}, scoring, accuracy): " + "; ".join(best)


def _tied_line(report: Report) -> str:
    content, found = report.ratio.content, report.found
    tied = ", ".join(f"{name} {low:.0%} to {high:.0%}" for name, (low, high) in content["tied_interval"].items())
    line = f"tied with the best at 95%: {tied}"
    if found.best.flat:
        line += ": a flat optimum, these trials prefer no mixture inside the grid to another"
    line += f"; chosen is {CHOSEN[found.chosen_by]}"
    if found.first is not None:
        low, high = found.first.interval
        flat = ", flat" if found.first.flat else ""
        line += (
            f"; first stage: {found.quality:.0%} of the interpreting is quality ({low:.0%} to {high:.0%} tied{flat})"
        )
    ahead = {name: figures.get("chosen_ahead") for name, figures in content["metrics"].items()}
    within = [name for name, one in ahead.items() if one and one["interval"][0] <= 0]
    return line + (f"; chosen is not better than {' and '.join(within)} beyond noise" if within else "")


def _cell(figure: dict[str, Any]) -> str:
    low, high = figure["interval"]
    return f"{figure['value']:>8.3f} [{low:.3f}, {high:.3f}]".rjust(24)
