"""What a search has found: as the content of ratio.yaml and as a few lines to read. Needs finished trials only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..settings_file import ConfigError
from .analysis import Found, find
from .design import Design, Point, mixture
from .fit import PARAMETERS, TooFewTrials
from .noise import NAMES, Estimate, deviations, figures_of, measured, on_curves, scatter
from .objective import Objective
from .ratio import CHOSEN, NAME, Ratio
from .settings import SearchSettings
from .study import read_record, source_shares
from .trials import Trial, read_trials

LIMITS = [-1.0, 0.0, 0.0], [1.0, 1.0, 1.0]
"""Of the figures, in the order of ``NAMES``."""
NOT_KEPT = "nothing: trials of an older version do not hold it, intervals leave it out"


@dataclass(frozen=True)
class Report:
    """``record``: search.json. ``trials``: those of the design that are finished; ``missing``: how many are not."""

    record: dict[str, Any]
    design: Design
    objective: Objective
    trials: Sequence[Trial]
    missing: int
    found: Found
    ratio: Ratio


def make_report(folder: str | Path) -> Report:
    """Read a search's folder and fit. Raises ConfigError for a folder of another search and too few finished trials."""
    folder = Path(folder)
    record, finished = read_record(folder), read_trials(folder)
    kept = {name: value for name, value in record["settings"].items() if name not in ("scoring_weight", "margin")}
    for name, stays in (("mode", "paper"), ("objective", "harmonic")):
        if kept.get(name, stays) != stays:
            told = f"{folder} is of a search with {name}: {kept[name]}, which was removed"
            raise ConfigError(f"{told}: search again with {name}: {stays} and the same output, its trials are kept")
    settings = SearchSettings(**kept)
    design, objective = settings.design(len(record["facts"]["groups"])), settings.target(record["validation"]["chance"])
    try:
        found = find(design, list(finished.values()), objective)
    except TooFewTrials as error:
        told = f"{folder}: {error}; {len(finished)} trials are finished"
        raise ConfigError(f"{told}: go on with qsit train balance search") from None
    planned = design.first() + (design.second(found.quality) if found.quality is not None else [])
    trials = [finished[one] for one in planned if one in finished]
    content = ratio_content(record, design, objective, trials, found)
    ratio = Ratio(folder / NAME, content)
    return Report(record, design, objective, trials, len(planned) - len(trials), found, ratio)


# ---- ratio.yaml ----


def ratio_content(
    record: dict[str, Any], design: Design, objective: Objective, trials: Sequence[Trial], found: Found
) -> dict[str, Any]:
    """JSON-ready: the chosen mixture, figures with intervals, noise, and where it is all from."""
    facts, best, first, groups = record["facts"], found.best, found.first, record["facts"]["groups"]
    shares = {name: round(share, 6) for name, share in source_shares(record, found.point).items()}
    tokens = {name: share * record["tokens"][name] for name, share in shares.items()}
    ends = [mixture(share, found.quality) for share in best.interval]
    by, (sd, free) = "seeds", scatter(trials, objective)
    if not free:
        by, sd, free = "distance from the curves", best.error, len(best.shares) - PARAMETERS
    lambda_l, metrics = _metrics(design, objective, trials, found, (sd, free))
    kept = all(trial.reweighted is not None for trial in trials)
    noise = {
        "single_trial": _named(sd),
        "measured_by": by,
        "curve_error": _named(best.error[:2]),
        "validation_rows": _named(deviations(trials).var(axis=1).mean(axis=0) ** 0.5),
        "validation_rows_by": "re-weighted validation rows" if kept else NOT_KEPT,
    }
    content = {
        "share": shares,
        "chosen_by": found.chosen_by,
        "token_share": {name: _r(amount / sum(tokens.values())) for name, amount in tokens.items()},
        "groups": groups,
        "group_share": _named(found.point, groups),
        "tied_interval": {name: sorted(map(_r, two)) for name, two in zip(groups, np.transpose(ends), strict=True)},
        "flat": best.flat,
        "optimum_share": _named(mixture(best.grid[best.best], found.quality), groups),
        "objective": {"name": "harmonic", "chance": round(objective.chance, 6)},
        "lambda_L": _r(lambda_l) if np.isfinite(lambda_l) else None,
        "metrics": metrics,
        "pareto": [_named((*one, *two), (*groups, "srcc_plcc", "accuracy")) for one, two in pareto(trials)],
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
        tied = list(map(_r, first.interval))
        content["first_stage"] = {"quality": found.quality, "tied_interval": tied, "flat": first.flat}
    return content


def _metrics(
    design: Design, objective: Objective, trials: Sequence[Trial], found: Found, noise: tuple[np.ndarray, float]
) -> tuple[float, dict[str, Any]]:
    """lambda_L and the figures of the optimum, the chosen mixture and the baselines."""
    best = found.best
    members = {point: [one for one in trials if one.point == point] for point in design.baselines.values()}
    tried = {point: measured(here, objective, *noise) for point, here in members.items() if here}
    chosen, lambda_l = on_curves(best, found.candidate), best.losses[found.candidate]
    if found.point in tried:  # a baseline may be off the line of the curves
        chosen, lambda_l = tried[found.point], np.exp(figures_of(members[found.point])[:, 2].mean())
    metrics = {"optimum": _figures(on_curves(best, best.best)), "chosen": _figures(chosen)}
    for name, point in design.baselines.items():
        if point in tried:
            metrics[name] = _figures(tried[point])
        if point in tried and point != found.point:
            ahead, half, _ = chosen.ahead(tried[point])
            metrics[name]["chosen_ahead"] = {"value": _r(ahead), "interval": [_r(ahead - half), _r(ahead + half)]}
    return float(lambda_l), metrics


def _figures(one: Estimate) -> dict[str, Any]:
    half = one.half_interval()
    intervals = np.clip([one.values - half, one.values + half], *LIMITS).T
    told: dict[str, Any] = {} if one.trials is None else {"trials": one.trials}
    for name, value, interval in zip(NAMES, one.values, intervals, strict=True):
        told[name] = {"value": _r(value), "interval": list(map(_r, interval))}
    return told


def pareto(trials: Sequence[Trial]) -> list[tuple[Point, np.ndarray]]:
    """Mixtures, with scoring and accuracy (2,) as means over seeds, than which no other has both at least as good and
    one better; most scoring first."""
    points = sorted({trial.point for trial in trials}, reverse=True)
    means = [figures_of([trial for trial in trials if trial.point == point])[:, :2].mean(axis=0) for point in points]
    beaten = [any((other >= one).all() and (other > one).any() for other in means) for one in means]
    return [(points[i], means[i]) for i in range(len(points)) if not beaten[i]]


def _named(values: Sequence[float] | np.ndarray, names: Sequence[str] = NAMES) -> dict[str, float]:
    return dict(zip(names, map(_r, values), strict=False))


def _r(value: float) -> float:
    return round(float(value), 4)


# ---- lines ----


def report_lines(report: Report) -> Iterator[str]:
    """The result in ten lines at most."""
    content, counts, groups = report.ratio.content, report.record["validation"], report.ratio.content["groups"]
    left = f", {report.missing} more to come" if report.missing else ""
    yield (
        f"{len(report.trials)} trials of {content['budget']['samples']:,} rows{left}; {content['light_model']}; "
        f"validated on {counts['ratings']:,} ratings and {counts['choices']:,} choices (chance {counts['chance']:.1%})"
    )
    head = "".join(f"{name:>9}" for name in groups)
    yield f"{'':<10}{head}{'(SRCC+PLCC)/2':>24}{'accuracy':>24}{'harmonic':>24}"
    points = {"optimum": content["optimum_share"].values(), "chosen": report.found.point, **report.design.baselines}
    for name, figures in content["metrics"].items():
        shares = "".join(f"{share:>9.0%}" for share in points[name])
        yield f"{name:<10}{shares}" + "".join(_cell(figures[key]) for key in NAMES)
    yield _tied_line(report)
    tokens = content["token_share"]
    told = [f"{name} {share:.1%} ({tokens[name]:.1%} of supervised tokens)" for name, share in content["share"].items()]
    if content["lambda_L"] is not None:
        told[-1] += f"; lambda_L {content['lambda_L']:.3f} (score loss / interpret loss at the chosen mixture)"
    yield "shares " + ", ".join(told)
    noise, figures = content["noise"], "scoring {scoring:.3f}, accuracy {accuracy:.3f}"
    yield (
        f"noise of one trial (by {noise['measured_by']}): {figures.format(**noise['single_trial'])}; of the choice of "
        f"validation rows (by {noise['validation_rows_by']}): {figures.format(**noise['validation_rows'])}"
    )
    best = ("/".join(f"{x:.0%}" for x in point) + " {:.3f} {:.3f}".format(*two) for point, two in pareto(report.trials))
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
        tied = f"{low:.0%} to {high:.0%} tied" + (", flat" if found.first.flat else "")
        line += f"; first stage: {found.quality:.0%} of the interpreting is quality ({tied})"
    ahead = {name: figures.get("chosen_ahead") for name, figures in content["metrics"].items()}
    within = [name for name, one in ahead.items() if one and one["interval"][0] <= 0]
    return line + (f"; chosen is not better than {' and '.join(within)} beyond noise" if within else "")


def _cell(figure: dict[str, Any]) -> str:
    low, high = figure["interval"]
    return f"{figure['value']:>8.3f} [{low:.3f}, {high:.3f}]".rjust(24)
