"""What a search has found: as the content of ratio.yaml and as a few lines to read. Needs finished trials only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..settings_file import ConfigError, parse_overrides
from . import surface
from .analysis import best_mixture, second_line
from .choice import MIDDLE, PUBLISHED, choose
from .content import Found, pareto_points, ratio_content
from .design import Planned, Point
from .ratio import NAME, Ratio
from .settings import SearchSettings
from .study import read_record
from .trials import Trial, read_trials

OBJECTIVE_SETTINGS = ("objective", "scoring_weight", "margin")


@dataclass(frozen=True)
class Report(Found):
    """``missing``: how many trials of the design are not finished."""

    folder: Path
    missing: int
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
    planned = design.first() + (design.second(second_line(design, finished, first)) if first is not None else [])
    used, missing = _of_plan(planned, finished)
    choice = choose(design, finished, best, first)
    found = Found(record, design, objective, tuple(used), best, first, choice)
    ratio = Ratio(folder / NAME, ratio_content(found, settings.mode))
    return Report(**vars(found), folder=folder, missing=missing, ratio=ratio)


def _of_plan(planned: Sequence[Planned], finished: Sequence[Trial]) -> tuple[list[Trial], int]:
    known = {Planned(trial.point, trial.seed): trial for trial in finished}
    used = [known[one] for one in planned if one in known]
    return used, len(planned) - len(used)


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
    points = {"optimum": best.point, "chosen": report.choice.point, **report.design.baselines()}
    for name, found in metrics.items():
        shares = "".join(f"{share:>9.0%}" for share in points[name])
        yield f"{name:<10}{shares}" + "".join(_cell(found[key]) for key in ("scoring", "accuracy", "objective"))
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
    told = [f"{_slashed(point)} {scoring:.3f} {right:.3f}" for point, scoring, right in pareto_points(report.trials)]
    yield f"Pareto set ({'/'.join(report.groups)}, scoring, accuracy): " + "; ".join(told)


def _tied_line(report: Report) -> str:
    best, told = report.best, []
    for number, name in enumerate(report.groups):
        low, high = best.interval(number)
        told.append(f"{name} {low:.0%} to {high:.0%}")
    line = f"tied with the best at 95%: {', '.join(told)}"
    if best.flat:
        line += ": a flat optimum, these trials prefer no mixture inside the grid to another"
    line += f"; chosen is {_chosen_text(report)}"
    if report.first is not None:
        low, high = report.first.axis_interval()
        quality = report.ratio.content["first_stage"]["quality"]
        flat = ", flat" if report.first.flat else ""
        line += f"; first stage: {quality:.0%} of the interpreting is quality ({low:.0%} to {high:.0%} tied{flat})"
    ahead = {name: found.get("chosen_ahead") for name, found in report.ratio.content["metrics"].items()}
    within = [name for name, one in ahead.items() if one and one["interval"][0] <= 0]
    if within:
        line += f"; chosen is not better than {' and '.join(within)} beyond noise"
    return line


def _chosen_text(report: Report) -> str:
    if report.choice.by == MIDDLE:
        return "the middle of that"
    if report.choice.by == PUBLISHED:
        return "the published mixture, as nothing speaks for another"
    return "the published share of scoring, as nothing speaks for another"


def _slashed(point: Point) -> str:
    return "/".join(f"{share:.0%}" for share in point)


def _cell(found: dict[str, Any]) -> str:
    low, high = found["interval"]
    return f"{found['value']:>8.3f} [{low:.3f}, {high:.3f}]".rjust(24)
