"""Whether a mixture that the light model has found is also better on the primary one: short runs, compared."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..config import RunConfig
from ..requirements import require_training
from .analysis import figures_of
from .design import Design, Planned, Point
from .items import deviations
from .objective import Objective
from .power import power_content, power_line, say_power
from .ratio import Ratio, check_fits, write_ratio
from .study import model_name, open_study, read_record
from .surface import CONFIDENCE, half_interval
from .trials import Trial, Worker, run_trials


def verify(
    ratio: Ratio,
    config: RunConfig,
    output: str | Path,
    *,
    samples: int,
    validation: str | Path,
    seeds: Sequence[int] = (0, 1, 2),
    images: str | None = None,
    limit: int | None = None,
    worker: Worker | None = None,
    say: Callable[[str], None] = print,
    log: Callable[[str], None] | None = None,
) -> Ratio | None:
    """Train ``config``'s model on the chosen, the equal and the published mixture, compare them on validation rows, and
    write the outcome into the ratio's file.

    Only a difference from the equal mixture that noise does not explain makes it ``verified: true``. What the
    comparison can find at all is told beside it: how often a gain of the paper's size would be. Returns None where
    other workers have trials to finish first. Raises ConfigError as a search does, and where the ratio does not fit.
    """
    require_training()
    worker = worker or Worker()
    check_fits(ratio, config)
    groups = {name: tuple(members) for name, members in ratio.content["groups"].items()}
    study = open_study(
        config, output, samples=samples, validation=validation, sources=groups, images=images, limit=limit
    )
    chosen: Point = tuple(sum(ratio.shares[name] for name in members) for members in groups.values())
    points = {"chosen": tuple(round(share, 6) for share in chosen)} | Design(len(groups), "joint", (0,)).baselines()
    say_power(ratio, len(seeds), say)
    planned = list(dict.fromkeys(Planned(point, seed) for seed in seeds for point in points.values()))
    finished = run_trials(study, planned, worker=worker, say=say, log=log)
    if len(finished) < len(planned):
        say(
            f"{len(planned) - len(finished)} trials of other workers are not finished: when they are, give the same "
            "command again"
        )
        return None
    told = ratio.content["objective"]
    objective = Objective(**told | {"chance": read_record(study.output)["validation"]["chance"]})
    outcome = compare(points, finished, objective)
    found = outcome["equal"]
    content = ratio.content | {
        "verified": found["verdict"] == "better",
        "verification": {
            "model": model_name(config.base),
            "samples": samples,
            "seeds": list(seeds),
            "mixtures": outcome,
            "power": power_content(finished, objective, found, len(seeds)),
        },
    }
    done = replace(ratio, content=content)
    write_ratio(done)
    return done


def compare(points: dict[str, Point], trials: Sequence[Trial], objective: Objective) -> dict[str, dict[str, Any]]:
    """Means of each mixture, and how far the chosen one is ahead of the others with a 95% interval: Welch's, with the
    choice of validation rows beside the scatter of seeds (``rows_error``: the standard error of the difference by it).

    The verdict is "better" or "worse" where that interval is above or below 0, else "within noise"; with one seed noise
    is not known, and the verdict is "one seed".
    """
    members = {name: [trial for trial in trials if trial.point == point] for name, point in points.items()}
    tables = {name: figures_of(found) for name, found in members.items()}
    top = max(float(table[:, 0].mean()) for table in tables.values())
    values = {name: objective(table[:, 0], table[:, 1], top) for name, table in tables.items()}
    off, _ = deviations(trials)
    outcome: dict[str, dict[str, Any]] = {}
    for name, table in tables.items():
        scoring, accuracy = (round(float(column), 4) for column in table.mean(axis=0)[:2])
        outcome[name] = {"scoring": scoring, "accuracy": accuracy, "objective": round(float(values[name].mean()), 4)}
        if name == "chosen":
            continue
        if points[name] == points["chosen"]:
            outcome[name]["verdict"] = "the same mixture"
            continue
        moved = {key: _moved(trials, off, points[key], objective, top) for key in ("chosen", name)}
        rows_error = float((moved["chosen"] - moved[name]).std())
        ahead, half = welch(values["chosen"], values[name], rows_error**2)
        outcome[name]["chosen_ahead"] = round(ahead, 4)
        outcome[name]["interval"] = None if half is None else [round(ahead - half, 4), round(ahead + half, 4)]
        outcome[name]["rows_error"] = round(rows_error, 4)
        outcome[name]["verdict"] = (
            "one seed" if half is None else "better" if ahead > half else "worse" if ahead < -half else "within noise"
        )
    return outcome


def _moved(trials: Sequence[Trial], off: np.ndarray, point: Point, objective: Objective, top: float) -> np.ndarray:
    """The mean objective of a mixture on other weights of the validation rows."""
    here = [number for number, trial in enumerate(trials) if trial.point == point]
    figures = figures_of([trials[number] for number in here])[:, None, :2] + off[here]
    return objective(figures[..., 0], figures[..., 1], top).mean(axis=0)


def welch(one: np.ndarray, other: np.ndarray, common: float = 0.0) -> tuple[float, float | None]:
    """Difference of two means, and half of Welch's 95% interval of it; None where one of them has a single value.

    ``common``: variance of the difference that more values do not lower.
    """
    ahead = float(one.mean() - other.mean())
    if min(len(one), len(other)) < 2:
        return ahead, None
    parts = [(float(values.var(ddof=1)) / len(values), len(values) - 1.0) for values in (one, other)]
    return ahead, half_interval([*parts, (common, np.inf)], CONFIDENCE)


def verify_lines(ratio: Ratio) -> Iterator[str]:
    """The outcome in six lines at most."""
    done = ratio.content["verification"]
    yield f"{done['model']}, {done['samples']:,} rows, {len(done['seeds'])} seeds"
    for name, found in done["mixtures"].items():
        line = (
            f"{name:<10} (SRCC+PLCC)/2 {found['scoring']:.3f}, accuracy {found['accuracy']:.3f}, "
            f"{ratio.content['objective']['name']} {found['objective']:.3f}"
        )
        if "verdict" in found:
            line += f"; chosen against it: {_verdict(found)}"
        yield line
    yield power_line(done, ratio.content["objective"]["name"])
    yield f"verified: {str(ratio.content['verified']).lower()} ({ratio.path})"


def _verdict(found: dict[str, Any]) -> str:
    if found["verdict"] == "the same mixture":
        return "the same mixture"
    if found["interval"] is None:
        return f"{found['chosen_ahead']:+.3f}; one seed says nothing about noise, give more"
    low, high = found["interval"]
    told = f"{found['chosen_ahead']:+.3f} [{low:+.3f}, {high:+.3f}]"
    return f"{told}, {'the difference is within noise' if found['verdict'] == 'within noise' else found['verdict']}"
