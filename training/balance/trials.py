"""Trials: one short run of the light model each, its figures kept as a line of trials.jsonl, the rest thrown away."""

from __future__ import annotations

import gc
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from qsit_plugin.row_file import append_row, read_rows

from ..config import ConfigError, RunConfig
from .design import Planned, Point
from .study import Study

TRIALS = "trials.jsonl"


@dataclass(frozen=True)
class Trial:
    """A finished one. ``figures``: those of ``validation.Figures``. ``reweighted``: scoring and accuracy on other
    weights of the validation rows, see ``noise``; None in trials of older versions."""

    point: Point
    seed: int
    figures: dict[str, Any]
    reweighted: dict[str, list[float]] | None = None


def read_trials(output: Path) -> dict[Planned, Trial]:
    """All finished trials of all workers, without a last line that was cut off."""
    found: dict[Planned, Trial] = {}
    for path in [output / TRIALS, *sorted(output.glob("trials.*of*.jsonl"))]:
        for number, line in enumerate(read_rows(path), 1):
            try:
                row = json.loads(line)
                trial = Trial(tuple(row["point"]), row["seed"], row["figures"], row.get("reweighted"))
            except (ValueError, KeyError, TypeError):
                told = f"{path}, line {number} is no trial: take the line out, it is then run again"
                raise ConfigError(told) from None
            found.setdefault(Planned(trial.point, trial.seed), trial)
    return found


def run_trials(
    study: Study,
    planned: Sequence[Planned],
    *,
    worker: tuple[int, int] = (1, 1),
    keep: bool = False,
    say: Callable[[str], None] = print,
    log: Callable[[str], None] | None = None,
) -> list[Trial] | None:
    """Run this worker's part of what is not finished, and return all trials; None where other workers have some to
    finish first.

    ``worker``: which one of how many. Each takes every n-th trial and appends to a file of its own: two processes that
    append to one file over a network lose lines. ``keep``: leave the folders of trials, with models and checkpoints.
    ``log``: takes the lines of the runs.
    """
    number, count = worker
    path = study.output / (TRIALS if count == 1 else f"trials.{number}of{count}.jsonl")
    done, mine = read_trials(study.output), planned[number - 1 :: count]
    for place, one in enumerate(mine, 1):
        if one in done:
            continue
        trial = done[one] = run_trial(study, one, path, keep=keep, log=log)
        shares = ", ".join(f"{name} {share:.0%}" for name, share in zip(study.groups, one.point, strict=True))
        figures = {name: trial.figures[name] for name in ("srcc", "plcc", "accuracy")}
        told = ", ".join(f"{name} {'none' if value is None else f'{value:.3f}'}" for name, value in figures.items())
        say(f"trial {place} of {len(mine)}: {shares}, seed {one.seed}: {told}")
    missing = sum(one not in done for one in planned)
    if missing:
        say(f"{missing} trials of other workers are not finished: when they are, give the same command again")
        return None
    return [done[one] for one in planned]


def run_trial(
    study: Study, planned: Planned, path: Path, *, keep: bool = False, log: Callable[[str], None] | None = None
) -> Trial:
    """Run one, or what is left of it, and append its figures to ``path``."""
    import torch

    from .. import run as finetune
    from ..checkpoints import newest

    folder = study.output / "trials" / study.key(planned)
    resume = newest(folder / "checkpoints") is not None
    for stale in [folder / "model", folder / "adapter"] if resume else [folder]:
        shutil.rmtree(stale, ignore_errors=True)  # what a killed trial had half written
    run = _without_lone_ratings(study.run_of(planned, folder))
    result = finetune.run(run, resume=resume, say=log or finetune.silent)
    gc.collect()  # a run's model and optimizer refer to each other, and the next one needs the memory
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    trial = Trial(planned.point, planned.seed, *_figures(study, result))
    line = {"key": folder.name, **asdict(trial), "shares": run.shares, "samples": run.rows_per_epoch}
    append_row(path, json.dumps(line, ensure_ascii=False, allow_nan=False))
    if not keep:
        shutil.rmtree(folder, ignore_errors=True)
    return trial


def _without_lone_ratings(run: RunConfig) -> RunConfig:
    """The trial's run with level_loss: soft where it says soft+rank, but its mixture has so few ratings that no batch
    holds two to compare. That is the same training; a run that asks for soft+rank there is refused."""
    if run.level_loss != "soft+rank":
        return run
    from ..data.inputs import rows_of
    from ..ranking import planned_pairs

    compares = planned_pairs(rows_of("data", run.data, run.seed), run, devices=1).any()
    return run if compares else replace(run, level_loss="soft")


def _figures(study: Study, result: Path) -> tuple[dict[str, Any], dict[str, list[float]]]:
    """Of the result as a user would load it; and the same on other weights of the validation rows."""
    import qsit_plugin

    from ..validation.measure import answer, figures_of
    from .noise import reweighted

    base, adapter = (study.config.base, result) if result.name == "adapter" else (result, None)
    model = qsit_plugin.load(base, adapter=adapter, device=study.config.device, engine="torch")
    answers = answer(model, study.validation, study.images, images=study.settings.validation_limit)
    return figures_of(answers).to_dict(), reweighted(answers)
