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
from .objective import Objective
from .ratio import Ratio, check_fits, write_ratio
from .study import model_name, open_study, read_record
from .trials import Trial, Worker, run_trials

CONFIDENCE = 0.95


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

    Only a difference from the equal mixture that noise does not explain makes it ``verified: true``. Returns None where
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
    content = ratio.content | {
        "verified": outcome["equal"]["verdict"] == "better",
        "verification": {
            "model": model_name(config.base),
            "samples": samples,
            "seeds": list(seeds),
            "mixtures": outcome,
        },
    }
    done = replace(ratio, content=content)
    write_ratio(done)
    return done


def compare(points: dict[str, Point], trials: Sequence[Trial], objective: Objective) -> dict[str, dict[str, Any]]:
    """Means of each mixture, and how far the chosen one is ahead of the others with Welch's 95% interval.

    The verdict is "better" or "worse" where that interval is above or below 0, else "within noise"; with one seed noise
    is not known, and the verdict is "one seed".
    """
    tables = {name: figures_of([t for t in trials if t.point == point]) for name, point in points.items()}
    top = max(float(table[:, 0].mean()) for table in tables.values())
    values = {name: objective(table[:, 0], table[:, 1], top) for name, table in tables.items()}
    outcome: dict[str, dict[str, Any]] = {}
    for name, table in tables.items():
        scoring, accuracy = (round(float(column), 4) for column in table.mean(axis=0)[:2])
        outcome[name] = {"scoring": scoring, "accuracy": accuracy, "objective": round(float(values[name].mean()), 4)}
        if name == "chosen":
            continue
        if points[name] == points["chosen"]:
            outcome[name]["verdict"] = "the same mixture"
            continue
        ahead, half = welch(values["chosen"], values[name])
        outcome[name]["chosen_ahead"] = round(ahead, 4)
        outcome[name]["interval"] = None if half is None else [round(ahead - half, 4), round(ahead + half, 4)]
        outcome[name]["verdict"] = (
            "one seed" if half is None else "better" if ahead > half else "worse" if ahead < -half else "within noise"
        )
    return outcome


def welch(one: np.ndarray, other: np.ndarray) -> tuple[float, float | None]:
    """Difference of two means, and half of Welch's 95% interval of it; None where one of them has a single value."""
    from scipy.stats import t

    ahead = float(one.mean() - other.mean())
    if min(len(one), len(other)) < 2:
        return ahead, None
    parts = one.var(ddof=1) / len(one), other.var(ddof=1) / len(other)
    if sum(parts) == 0.0:
        return ahead, 0.0
    freedom = sum(parts) ** 2 / (parts[0] ** 2 / (len(one) - 1) + parts[1] ** 2 / (len(other) - 1))
    return ahead, float(t.ppf(0.5 + CONFIDENCE / 2, freedom) * np.sqrt(sum(parts)))


def verify_lines(ratio: Ratio) -> Iterator[str]:
    """The outcome in five lines at most."""
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
    yield f"verified: {str(ratio.content['verified']).lower()} ({ratio.path})"


def _verdict(found: dict[str, Any]) -> str:
    if found["verdict"] == "the same mixture":
        return "the same mixture"
    if found["interval"] is None:
        return f"{found['chosen_ahead']:+.3f}; one seed says nothing about noise, give more"
    low, high = found["interval"]
    told = f"{found['chosen_ahead']:+.3f} [{low:+.3f}, {high:+.3f}]"
    return f"{told}, {'the difference is within noise' if found['verdict'] == 'within noise' else found['verdict']}"
