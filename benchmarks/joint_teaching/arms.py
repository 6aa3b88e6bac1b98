"""The arms: mixtures that the model of nano's shape is taught on, each a trial of ``qsit train balance``."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import qsit_plugin
from qsit_plugin.row_file import append_row, read_rows
from qsit_plugin.training.balance.design import PUBLISHED, Planned, Point, mixture, quality_share
from qsit_plugin.training.balance.settings import SearchSettings
from qsit_plugin.training.balance.study import Study, open_study
from qsit_plugin.training.balance.trials import run_trials
from qsit_plugin.training.balance.verify import WANTED, power
from qsit_plugin.training.config import RunConfig
from qsit_plugin.training.errors import ConfigError

from .figures import measure

FEWEST, MOST = 3, 5
"""Seeds of an arm."""

BALANCED = "balanced"


@dataclass(frozen=True)
class Arm:
    """``point``: shares of scoring, quality and general data. ``samples``: rows that it is trained on."""

    name: str
    point: Point
    samples: int


def arms_of(balanced: Point, rows: Sequence[int], samples: int) -> list[Arm]:
    """All arms. ``rows``: how many of each kind there are.

    ``scoring-only`` and ``interpreting-only`` cost what a joint arm costs. The two with own rows see as many rows of
    their task as the balanced arm does and no others, as in the paper: what the other task's rows add or take away.
    Interpreting alone has quality and general data in the balanced arm's proportion.
    """
    share = quality_share(balanced)
    interpreting = mixture(0.0, quality_share(PUBLISHED[3]) if share != share else share)
    every = sum(rows)
    joint = {
        "by-size": tuple(round(count / every, 6) for count in rows),
        "equal": tuple(round(1 / len(rows), 6) for _ in rows),
        "published": PUBLISHED[3],
        BALANCED: balanced,
    }
    alone = {"scoring-only": (1.0, 0.0, 0.0), "interpreting-only": interpreting}
    arms = [Arm(name, point, samples) for name, point in (alone | joint).items()]
    for name, point, part in zip(
        ("scoring", "interpreting"), alone.values(), (balanced[0], 1 - balanced[0]), strict=True
    ):
        if own := round(part * samples):
            arms.append(Arm(f"{name}-own-rows", point, own))
    return arms


def seeds_for(ratio: dict[str, Any]) -> tuple[int, str]:
    """How many seeds find the effect that the light model had, between FEWEST and MOST, and a line that says so."""
    equal, noise = ratio["metrics"].get("equal"), ratio["noise"]["single_trial"]["objective"]
    gain = abs(equal["chosen_ahead"]["value"]) if equal and "chosen_ahead" in equal else 0.0
    found = {seeds: power(gain, noise, seeds) for seeds in range(FEWEST, MOST + 1)}
    count = next((seeds for seeds, sure in found.items() if sure >= WANTED), MOST)
    effect = f"the balanced mixture was {gain:.4f} from the equal one on the light model, with a noise of {noise:.4f}"
    return count, f"{effect}: {count} seeds find such a difference in {found[count]:.0%} of comparisons"


def done(results: Path) -> list[dict[str, Any]]:
    """The runs of a results file."""
    return [row for line in read_rows(results) if (row := json.loads(line)).get("kind") == "run"]


def run_arms(
    arms: Sequence[Arm],
    seeds: Sequence[int],
    config: RunConfig,
    settings: SearchSettings,
    part: Path,
    results: Path,
    say: Callable[[str], None],
) -> None:
    """Train and measure what ``results`` lacks, seed after seed, a line a run; stopped at any moment, the same call
    goes on. Models are kept below the settings' output, for the test part."""

    @cache
    def study_of(samples: int) -> Study:
        # facts of a study hold the samples, so each number has a folder
        return open_study(config, replace(settings, samples=samples, output=f"{settings.output}/{samples}"))

    for seed in seeds:
        for arm in arms:
            if any(row["arm"] == arm.name and row["seed"] == seed for row in done(results)):
                continue
            study, planned = study_of(arm.samples), Planned(arm.point, seed)
            begun, computed = time.monotonic(), time.process_time()
            run_trials(study, [planned], keep=True, say=lambda line, name=arm.name: say(f"{name}, {line}"))
            trained = time.monotonic()
            folder = model_folder(study, planned)
            found = measure(qsit_plugin.load(folder, engine="torch", device=config.device), part, Path(config.images))
            row = {"kind": "run", "arm": arm.name, "point": arm.point, "samples": arm.samples, "seed": seed}
            row["model"] = folder.parent.relative_to(study.output).as_posix()
            row["seconds"] = {"trial": round(trained - begun), "measured": round(time.monotonic() - trained)}
            row["seconds"]["processor"] = round(time.process_time() - computed)
            append_row(results, json.dumps(row | found, allow_nan=False))
            shutil.rmtree(folder.parent / "checkpoints", ignore_errors=True)
            say(f"{arm.name}, seed {seed}: {line_of(found)}")


def model_folder(study: Study, planned: Planned) -> Path:
    """The result of a trial that was kept. Raises ConfigError where it is gone."""
    folder = study.output / "trials" / study.key(planned) / "model"
    if not (folder / "qsit.json").is_file():
        lines = f"{study.output / 'trials.jsonl'}, the line of {folder.parent.name}"
        raise ConfigError(f"{folder} is gone, but its trial is finished: take out {lines}, and it is trained again")
    return folder


def line_of(found: dict[str, Any]) -> str:
    names = ("scoring", "unseen", "letters", "yes_no", "words")
    return ", ".join(f"{name} {found[name]['value']:.3f}" for name in names)


def look_at_test(
    results: Path, output: Path, part: Path, images: Path, twins: set[str], tested: Path, say: Callable[[str], None]
) -> None:
    """Measure every kept model once on the test part, a line each in ``tested``; those that are there are not looked at
    again."""
    there = {(row["arm"], row["seed"]) for row in done(tested)}
    for run in done(results):
        if (run["arm"], run["seed"]) in there:
            continue
        model = qsit_plugin.load(output / str(run["samples"]) / run["model"] / "model", engine="torch", device="cpu")
        found = measure(model, part, images, twins)
        append_row(
            tested, json.dumps({name: run[name] for name in ("kind", "arm", "point", "samples", "seed")} | found)
        )
        say(f"test, {run['arm']}, seed {run['seed']}: {line_of(found)}")
