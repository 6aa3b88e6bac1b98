"""What all trials of a search share: the light model, its run, the groups of data, the rows to validate on."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qsit_plugin.row_file import write_whole

from ..config import ConfigError, RunConfig
from ..requirements import versions
from .design import GROUPS, Planned, Point

if TYPE_CHECKING:
    from ..data.mixture import Mixture
    from ..data.rows import TrainingRow

RECORD = "search.json"
OWN: dict[str, Any] = {
    "epochs": 1,
    "max_steps": None,
    "keep_checkpoints": 1,
    "tensorboard": False,
    "validation": None,
    "validate_every": None,
    "balance": None,
    "balance_lambda": None,
    "scoring_sources": None,
}
"""Settings of a run that every trial has, whatever the config says; so are output, shares, seed and rows_per_epoch."""
CURE = "give sources: which files are scoring, quality and general data"


@dataclass(frozen=True)
class Study:
    """``record``: search.json; its facts are what must be the same for trials to be compared. ``limit``: of validation
    images."""

    output: Path
    config: RunConfig
    record: dict[str, Any]
    validation: tuple[TrainingRow, ...]
    images: str
    limit: int | None

    @property
    def groups(self) -> dict[str, list[str]]:
        """Group -> its sources."""
        return self.record["facts"]["groups"]

    @property
    def samples(self) -> int:
        return self.record["facts"]["samples"]

    def shares(self, point: Point) -> dict[str, float]:
        """The share of each source at a point."""
        return source_shares(self.groups, self.record["rows"], point)

    def key(self, planned: Planned) -> str:
        """Identifies a finished trial: a hash of the facts, the mixture and the seed."""
        return _hash([self.record["facts"], list(planned.point), planned.seed])[:16]

    def run_of(self, planned: Planned, folder: Path) -> RunConfig:
        """The trial's run: a fixed number of rows, whatever the mixture, so that all trials cost the same."""
        shares = self.shares(planned.point)
        trial = {"output": str(folder), "shares": shares, "seed": planned.seed, "rows_per_epoch": self.samples}
        return replace(self.config, **trial, **OWN)


def open_study(
    config: RunConfig,
    output: str | Path,
    *,
    samples: int,
    validation: str | Path,
    sources: Mapping[str, Sequence[str]] | None = None,
    images: str | None = None,
    limit: int | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Study:
    """Open the model and read all data once, so that what is wrong shows before the first trial.

    ``settings``: kept in search.json for the report.

    Raises ConfigError for everything that a run would refuse, data that are no two or three groups, validation rows
    without ratings or without choices, and an output of a search of other trials.
    """
    from .. import run as finetune
    from ..checkpoints import FREE
    from ..data.inputs import rows_of

    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise ConfigError(
            "a balance runs one trial on one device: start one process a device, with --worker 1/4 to --worker 4/4 for "
            "four, not torchrun or accelerate launch"
        )
    output, folder = Path(output), images or config.images
    mixture = rows_of("data", config.data, config.seed)
    groups = group_sources(mixture, sources)
    rows = rows_of("validation", str(validation), config.seed).rows()
    counts = _check_validation(rows, Path(folder), str(validation))
    with tempfile.TemporaryDirectory() as nowhere:  # a run makes its output folder at once
        prepared = finetune.prepare(replace(config, output=nowhere, shares=None, rows_per_epoch=samples, **OWN))
    tokens = [int(one.learned.sum()) for one in prepared.trainer.dataset.tokens]
    free = FREE | OWN.keys() | {"shares", "seed", "rows_per_epoch"}
    facts = {
        **prepared.facts,
        "config": {name: value for name, value in config.to_dict().items() if name not in free},
        "samples": samples,
        "rows": {source.name: source.sha256 for source in mixture.sources},
        "groups": {name: list(members) for name, members in groups.items()},
        "validation": _hash([[row.id, row.image, row.messages, row.mos] for row in rows]),
        "validation_limit": limit,
    }
    shared = {row.image for row in rows} & {row.image for row in mixture.rows()}
    record = {
        "facts": facts,
        "settings": dict(settings or {}),
        "light_model": model_name(config.base),
        "normalize": config.normalize,
        "rows": {source.name: len(source.rows) for source in mixture.sources},
        "tokens": _tokens_per_row(mixture, tokens),
        "validation": {**counts, "images_trained_on": len(shared)},
        "versions": versions("torch", "transformers"),
    }
    _keep_record(output, record)
    return Study(output, config, record, tuple(rows), str(folder), limit)


def read_record(output: Path) -> dict[str, Any]:
    """search.json of a folder. Raises ConfigError where there is none."""
    try:
        return json.loads((output / RECORD).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise ConfigError(f"{output} holds no search: give the output folder of qsit train balance search") from None


def source_shares(groups: Mapping[str, Sequence[str]], rows: Mapping[str, int], point: Point) -> dict[str, float]:
    """Shares of groups as shares of sources; the sources of a group divide its share by their rows."""
    shares: dict[str, float] = {}
    for members, share in zip(groups.values(), point, strict=True):
        total = sum(rows[name] for name in members)
        shares |= {name: share * rows[name] / total for name in members}
    return {name: shares[name] for name in rows}


def group_sources(mixture: Mixture, given: Mapping[str, Sequence[str]] | None) -> dict[str, Sequence[str]]:
    """The sources of each group, in the order of ``GROUPS``; by the tasks of their rows unless given."""
    names = [source.name for source in mixture.sources]
    if given is not None:
        listed = [name for members in given.values() for name in members]
        if sorted(listed) != sorted(names):
            raise ConfigError(
                f"sources lists {', '.join(listed)}, the data are {', '.join(names)}: list each file once, by its name "
                "without ending"
            )
        return {name: given[name] for name in GROUPS if name in given}
    tasks = {source.name: {row.task for row in source.rows} for source in mixture.sources}
    mixed = [name for name in names if len(tasks[name]) > 1]
    if mixed:
        raise ConfigError(f"{', '.join(mixed)} holds ratings and conversations: make two files of it, or {CURE}")
    scoring = [name for name in names if tasks[name] == {"score"}]
    others = [name for name in names if name not in scoring]
    if not scoring or not 1 <= len(others) <= 2:
        raise ConfigError(
            f"of the data {', '.join(names)}, {len(scoring)} files are ratings and {len(others)} are conversations: "
            f"there must be ratings and one or two files of conversations; with more, {CURE}"
        )
    return {"scoring": scoring, **{name: [file] for name, file in zip(GROUPS[1:], others, strict=False)}}


def _check_validation(rows: Sequence[TrainingRow], folder: Path, name: str) -> dict[str, Any]:
    """Counts of what is validated on, and the chance of its questions."""
    from qsit_plugin.evaluation.figures import LEAST

    from ..data.choices import choice_of

    try:
        questions = [question for row in rows if (question := choice_of(row)) is not None]
    except ValueError as error:
        raise ConfigError(f"validation: {error}") from None
    ratings = sum(row.task == "score" for row in rows)
    if ratings < LEAST or not questions:
        raise ConfigError(
            f"validation: {name} has {ratings} ratings and {len(questions)} questions with lettered options: a balance "
            f"needs {LEAST} ratings and a question at least, and hundreds of both to tell mixtures apart"
        )
    missing = [row.image for row in rows if not (folder / row.image).is_file()]
    if missing:
        raise ConfigError(
            f"validation: {len(missing)} images are not in {folder}, first: {missing[0]}; validation_images gives "
            "their folder"
        )
    chance = sum(1 / len(question.options) for question in questions) / len(questions)
    return {"ratings": ratings, "choices": len(questions), "chance": chance}


def _tokens_per_row(mixture: Mixture, tokens: Sequence[int]) -> dict[str, float]:
    """The mean of supervised tokens of each source's rows, from those of all rows in order."""
    begin, found = 0, {}
    for source in mixture.sources:
        part = tokens[begin : begin + len(source.rows)]
        found[source.name] = sum(part) / len(part)
        begin += len(part)
    return found


def _keep_record(output: Path, record: dict[str, Any]) -> None:
    """Write search.json, or see that what is there is of the same trials."""
    if (output / RECORD).is_file():
        changed = _differences(read_record(output)["facts"], record["facts"])
        if changed:
            raise ConfigError(
                f"{output} holds trials of another search: {'; '.join(changed)}. Give what it had, or another output"
            )
    output.mkdir(parents=True, exist_ok=True)
    write_whole(output / RECORD, json.dumps(record, indent=2, ensure_ascii=False) + "\n")


def _differences(before: Mapping[str, Any], now: Mapping[str, Any], above: str = "") -> list[str]:
    told = []
    for name in {**before, **now}:
        was, is_ = before.get(name), now.get(name)
        if isinstance(was, dict) and isinstance(is_, dict):
            told += _differences(was, is_, f"{above}{name}.")
        elif was != is_:
            told.append(f"{above}{name} was {was!r}, is {is_!r}")
    return told


def model_name(base: str) -> str:
    """A checkpoint's name; of a folder its last part, which means the same elsewhere."""
    return Path(base).resolve().name if Path(base).is_dir() else base


def _hash(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, ensure_ascii=False).encode()).hexdigest()
