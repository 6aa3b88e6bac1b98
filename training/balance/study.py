"""What all trials of a search share: the light model, its run, the groups of data, the rows to validate on."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qsit_plugin.row_file import write_whole

from ..config import ConfigError, RunConfig
from ..requirements import versions
from .design import GROUPS, Planned, Point
from .settings import SearchSettings

if TYPE_CHECKING:
    from ..data.mixture import Mixture
    from ..data.rows import TrainingRow

RECORD = "search.json"
OWN: dict[str, Any] = {"epochs": 1, "keep_checkpoints": 1, "tensorboard": False, "report_to": ()} | dict.fromkeys(
    ("max_steps", "validation", "validate_every", "early_stopping", "balance", "balance_lambda", "scoring_sources")
)
"""Settings of a run that every trial has, whatever the config says; so are output, shares, seed and rows_per_epoch."""
LATER = ("load_in_4bit", "attn_implementation")
"""Settings that came later: trials without them keep the keys that they had before."""


@dataclass(frozen=True)
class Study:
    """``settings``: of the search. ``record``: search.json; its facts are what must be the same for trials to be
    compared. ``images``: folder of the validation rows' images."""

    config: RunConfig
    settings: SearchSettings
    record: dict[str, Any]
    validation: Sequence[TrainingRow]
    images: str

    @property
    def output(self) -> Path:
        return Path(self.settings.output)

    @property
    def groups(self) -> dict[str, list[str]]:
        """Group -> its sources."""
        return self.record["facts"]["groups"]

    def key(self, planned: Planned) -> str:
        """The name of a trial's folder: a hash of the facts, the mixture and the seed."""
        return _hash([self.record["facts"], list(planned.point), planned.seed])[:16]

    def run_of(self, planned: Planned, folder: Path) -> RunConfig:
        """The trial's run: a fixed number of rows, whatever the mixture, so that all trials cost the same."""
        shares = source_shares(self.record, planned.point)
        own = OWN | {"shares": shares, "seed": planned.seed, "rows_per_epoch": self.settings.samples}
        return replace(self.config, output=str(folder), **own)


def open_study(config: RunConfig, settings: SearchSettings) -> Study:
    """Open the model and read all data once, so that what is wrong shows before the first trial.

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
    images = settings.validation_images or config.images
    mixture = rows_of("data", config.data, config.seed)
    groups = group_sources(mixture, settings.sources)
    rows = rows_of("validation", settings.validation, config.seed).rows()
    counts = _check_validation(rows, Path(images), settings.validation)
    trials = str(Path(settings.output) / "trials")
    own = OWN | {"output": trials, "shares": None, "rows_per_epoch": settings.samples}
    prepared = finetune.prepare(replace(config, **own))
    of_rows = iter(prepared.dataset.tokens)
    tokens = {one.name: [int(next(of_rows).learned.sum()) for _ in one.rows] for one in mixture.sources}
    free = FREE | own.keys() | {"seed"}
    facts = {
        **prepared.facts,
        "config": {
            name: value for name, value in config.to_dict().items() if name not in free and (value or name not in LATER)
        },
        "samples": settings.samples,
        "rows": {source.name: source.sha256 for source in mixture.sources},
        "groups": {name: list(members) for name, members in groups.items()},
        "validation": _hash([[row.id, row.image, row.messages, row.mos] for row in rows]),
        "validation_limit": settings.validation_limit,
    }
    shared = {row.image for row in rows} & {name for row in mixture.rows() for name in row.images}
    record = {
        "facts": facts,
        "settings": settings.to_dict(),
        "light_model": model_name(config.base),
        "normalize": config.normalize,
        "rows": {name: len(counted) for name, counted in tokens.items()},
        "tokens": {name: sum(counted) / len(counted) for name, counted in tokens.items()},
        "validation": {**counts, "images_trained_on": len(shared)},
        "versions": versions("torch", "transformers"),
    }
    _keep_record(Path(settings.output), record)
    return Study(config, settings, record, rows, images)


def read_record(output: Path) -> dict[str, Any]:
    """search.json of a folder. Raises ConfigError where there is none."""
    try:
        return json.loads((output / RECORD).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise ConfigError(f"{output} holds no search: give the output folder of qsit train balance search") from None


def source_shares(record: Mapping[str, Any], point: Point) -> dict[str, float]:
    """Shares of groups as shares of sources; the sources of a group divide its share by their rows."""
    rows, shares = record["rows"], dict[str, float]()
    for members, share in zip(record["facts"]["groups"].values(), point, strict=True):
        shares |= {name: share * rows[name] / sum(rows[one] for one in members) for name in members}
    return {name: shares[name] for name in rows}


def group_sources(mixture: Mixture, given: Mapping[str, Sequence[str]] | None) -> dict[str, Sequence[str]]:
    """The sources of each group, in the order of ``GROUPS``; by the tasks of their rows unless given."""
    tasks = {source.name: {row.task for row in source.rows} for source in mixture.sources}
    if given is not None:
        listed = [name for members in given.values() for name in members]
        if sorted(listed) != sorted(tasks):
            raise ConfigError(
                f"sources lists {', '.join(listed)}, the data are {', '.join(tasks)}: list each file once, by its name "
                "without ending"
            )
        return {name: given[name] for name in GROUPS if name in given}
    cure = "give sources: which files are scoring, quality and general data"
    mixed = [name for name, found in tasks.items() if len(found) > 1]
    if mixed:
        raise ConfigError(f"{', '.join(mixed)} holds ratings and conversations: make two files of it, or {cure}")
    scoring = [name for name, found in tasks.items() if found == {"score"}]
    others = [name for name in tasks if name not in scoring]
    if not scoring or len(others) not in (1, 2):
        raise ConfigError(
            f"of the data {', '.join(tasks)}, {len(scoring)} files are ratings and {len(others)} are conversations: "
            f"there must be ratings and one or two files of conversations; with more, {cure}"
        )
    return {"scoring": scoring, **{name: [file] for name, file in zip(GROUPS[1:], others, strict=False)}}


def _check_validation(rows: Sequence[TrainingRow], folder: Path, name: str) -> dict[str, Any]:
    """Counts of what is validated on, and the chance of its questions."""
    from qsit_plugin.evaluation.figures import LEAST

    from ..data.inputs import questions_of
    from ..data.rows import only_image

    try:
        images = [only_image(row) for row in rows]
    except ValueError as error:
        raise ConfigError(f"validation: {error}") from None
    questions = questions_of(rows)
    ratings = sum(row.task == "score" for row in rows)
    if ratings < LEAST or not questions:
        raise ConfigError(
            f"validation: {name} has {ratings} ratings and {len(questions)} multiple-choice questions: a balance "
            f"needs {LEAST} ratings and a question at least, and hundreds of both to tell mixtures apart"
        )
    missing = [image for image in images if not (folder / image).is_file()]
    if missing:
        told = f"{len(missing)} images are not in {folder}, first: {missing[0]}"
        raise ConfigError(f"validation: {told}; validation_images gives their folder")
    chance = sum(1 / len(question.options) for question in questions) / len(questions)
    return {"ratings": ratings, "choices": len(questions), "chance": chance}


def _keep_record(output: Path, record: dict[str, Any]) -> None:
    """Write search.json, or see that what is there is of the same trials."""
    if (output / RECORD).is_file():
        was, now = _flat(read_record(output)["facts"]), _flat(record["facts"])
        names = [name for name in {**was, **now} if was.get(name) != now.get(name)]
        if names:
            changed = "; ".join(f"{name} was {was.get(name)!r}, is {now.get(name)!r}" for name in names)
            raise ConfigError(
                f"{output} holds trials of another search: {changed}. Give what it had, or another output"
            )
    elif any(output.glob("trials*.jsonl")):
        raise ConfigError(f"{output} holds trials, but not of which search ({RECORD} is missing): give another output")
    output.mkdir(parents=True, exist_ok=True)
    write_whole(output / RECORD, json.dumps(record, indent=2, ensure_ascii=False) + "\n")


def _flat(facts: Mapping[str, Any]) -> dict[str, Any]:
    """``{"rows": {"koniq": 1}, "samples": 2}`` as ``{"rows.koniq": 1, "samples": 2}``."""
    parts = {name: value if isinstance(value, dict) else {"": value} for name, value in facts.items()}
    return {f"{name}.{inner}".rstrip("."): one for name, part in parts.items() for inner, one in part.items()}


def model_name(base: str) -> str:
    """A checkpoint's name; of a folder its last part, which means the same elsewhere."""
    return Path(base).resolve().name if Path(base).is_dir() else base


def _hash(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, ensure_ascii=False).encode()).hexdigest()
