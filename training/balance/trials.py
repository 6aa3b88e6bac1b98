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
RESULTS = ("model", "adapter")


@dataclass(frozen=True)
class Trial:
    """A finished one. ``figures``: those of ``validation.Figures``. ``reweighted``: scoring and accuracy on other
    weights of the validation rows, see ``noise``; None in trials of older versions."""

    key: str
    point: Point
    seed: int
    figures: dict[str, Any]
    reweighted: dict[str, list[float]] | None = None


@dataclass(frozen=True)
class Worker:
    """Takes every ``of``-th trial, ``number`` from 1 up, and keeps lines of its own: two processes that append to one
    file over a network lose lines."""

    number: int = 1
    of: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.of:
            raise ConfigError(f"worker {self.number}/{self.of}: write it as 1/4, 2/4, 3/4 and 4/4 for four")

    @property
    def file(self) -> str:
        return TRIALS if self.of == 1 else f"trials.{self.number}of{self.of}.jsonl"


def read_trials(output: Path) -> list[Trial]:
    """All finished trials of all workers, without a last line that was cut off."""
    found: dict[str, Trial] = {}
    for path in [output / TRIALS, *sorted(output.glob("trials.*of*.jsonl"))]:
        for number, line in enumerate(read_rows(path), 1):
            try:
                content = json.loads(line)
                kept = content.get("reweighted")
                trial = Trial(content["key"], tuple(content["point"]), content["seed"], content["figures"], kept)
            except (ValueError, KeyError, TypeError):
                raise ConfigError(
                    f"{path}, line {number} is no trial: take the line out, it is then run again"
                ) from None
            found.setdefault(trial.key, trial)
    return list(found.values())


def run_trials(
    study: Study,
    planned: Sequence[Planned],
    *,
    worker: Worker | None = None,
    keep: bool = False,
    say: Callable[[str], None] = print,
    log: Callable[[str], None] | None = None,
) -> list[Trial]:
    """Run this worker's part of what is not finished; return what is finished of all workers' parts, and ``say`` where
    that is not all.

    ``keep``: leave the folders of trials, with models and checkpoints. ``log``: takes the lines of the runs.
    """
    worker = worker or Worker()
    done = {trial.key: trial for trial in read_trials(study.output)}
    mine = planned[worker.number - 1 :: worker.of]
    left = [one for one in mine if study.key(one) not in done]
    for number, one in enumerate(left, len(mine) - len(left) + 1):
        trial = run_trial(study, one, worker, keep=keep, log=log)
        done[trial.key] = trial
        shares = ", ".join(f"{name} {share:.0%}" for name, share in zip(study.groups, one.point, strict=True))
        figures = {name: trial.figures[name] for name in ("srcc", "plcc", "accuracy")}
        told = ", ".join(f"{name} {'none' if value is None else f'{value:.3f}'}" for name, value in figures.items())
        say(f"trial {number} of {len(mine)}: {shares}, seed {one.seed}: {told}")
    finished = [done[key] for one in planned if (key := study.key(one)) in done]
    if len(finished) < len(planned):
        say(
            f"{len(planned) - len(finished)} trials of other workers are not finished: when they are, give the same "
            "command again"
        )
    return finished


def run_trial(
    study: Study, planned: Planned, worker: Worker, *, keep: bool = False, log: Callable[[str], None] | None = None
) -> Trial:
    """Run one, or what is left of it, and keep its figures."""
    import torch

    from .. import run as finetune
    from ..checkpoints import newest

    key = study.key(planned)
    folder = study.output / "trials" / key
    resume = newest(folder / "checkpoints") is not None
    for stale in [folder / name for name in RESULTS] if resume else [folder]:
        shutil.rmtree(stale, ignore_errors=True)  # what a killed trial had half written
    run = _without_lone_ratings(study.run_of(planned, folder))
    result = finetune.run(run, resume=resume, say=log or finetune.silent)
    gc.collect()  # a run's model and optimizer refer to each other, and the next one needs the memory
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    trial = Trial(key, planned.point, planned.seed, *_figures(study, result))
    shares = {name: round(share, 6) for name, share in study.shares(trial.point).items()}
    line = asdict(trial) | {"shares": shares, "samples": study.samples}
    append_row(study.output / worker.file, json.dumps(line, ensure_ascii=False, allow_nan=False))
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

    from ..validation import answer, figures_of
    from .noise import reweighted

    config, adapter = study.config, result.name == "adapter"
    model = qsit_plugin.load(
        config.base if adapter else result, adapter=result if adapter else None, device=config.device
    )
    answers = answer(model, study.validation, study.images, images=study.limit)
    return figures_of(answers).to_dict(), reweighted(answers)
