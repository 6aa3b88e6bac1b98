"""From files of conversations to training rows: Q-SiT's JSON, Q-Instruct, LLaVA-Instruct-150K, rows of this package."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from qsit_plugin.evaluation.datasets.json_records import read_records
from qsit_plugin.evaluation.datasets.locate import FileTree
from qsit_plugin.evaluation.datasets.ratings import DatasetError
from qsit_plugin.protocol import TRAINING_CONSISTENT, ScoreProfile

from ..levels import SCALES, LevelScale
from .contradiction import contradiction_text
from .conversion import Conversion, Images, ScaleWarning, level_said, rounded
from .problems import BAD_ROW, DISAGREEMENT, MISSING_IMAGE, OUT_OF_RANGE
from .rows import RowError, TrainingRow, from_record, messages_of

QSIT, Q_INSTRUCT, LLAVA, ROWS = "qsit", "q_instruct", "llava", "jsonl"
NAMES = (QSIT, Q_INSTRUCT, LLAVA, ROWS)


def convert_conversations(
    name: str,
    path: str | Path,
    images: Images,
    *,
    scale: LevelScale | None = None,
    profile: ScoreProfile = TRAINING_CONSISTENT,
) -> Conversion:
    """A file of conversations as rows, in its order.

    Args:
        name: "qsit": every row is a rating, its ``id`` is ``file->mos``. "q_instruct", "llava": LLaVA-style
            conversations. "jsonl": what this package has written.
        scale: by which a rating and the level in its text are compared; by default named by the first folder of the
            image's path ("qsit": koniq, spaq) or by ``source`` ("jsonl"; not compared where that names no scale).
        profile: how ratings are worded in the file.

    Gives a ``ScaleWarning`` for a range that does not fit the ratings, and for rows whose soft labels do not amount to
    their ratings, as those of KonIQ's votes; it is in the result's ``warnings``, too.
    Raises DatasetError for a file that is missing or holds no JSON objects.
    """
    try:
        records = read_records(path)
    except FileNotFoundError:
        raise DatasetError(f"{path}: no such file") from None
    except ValueError as error:
        raise DatasetError(str(error)) from None
    result, prefix, on_disk = Conversion(), images.prefix, _finder(images)
    for number, record in enumerate(records):
        label = f"row {number} ({record.get('id', 'without id')})"
        try:
            row, level = read_row(name, record, number, scale, profile)
        except RowError as error:
            result.problems.add(BAD_ROW, f"{label}: {error}")
            continue
        rated_on = None if level is None or row.mos is None else scale or SCALES.get(row.source)
        if rated_on is not None and row.mos is not None:
            result.rating(rated_on, row.mos)
        if problem := _level_problem(row, level, rated_on):
            result.problems.add(problem[0], f"{label}: {problem[1]}")
        elif lost := [image for image in row.images if on_disk(image) is None]:
            result.problems.add(MISSING_IMAGE, f"{label}: {', '.join(lost)} is not in {images.folder}")
        else:
            found = tuple(f"{prefix}{on_disk(image)}" for image in row.images)
            result.add(replace(row, image=found), level, rated_on)
    result.check_scales()
    if scale is None and (text := contradiction_text(result.rows, profile)):
        result.warnings.append(text)
        warnings.warn(text, ScaleWarning, stacklevel=2)
    return result


def _finder(images: Images) -> Callable[[str], str | None]:
    """An image's path as it is on the disk, where case or the encoding of accents differ; None where it is not there.

    Each is looked for once: conversations share images.
    """
    if not images.check:
        return lambda path: path
    if not images.folder.is_dir():
        raise DatasetError(f"{images.folder}: no such image folder")
    known: dict[str, str | None] = {}
    tree = FileTree(images.folder)

    def on_disk(path: str) -> str | None:
        if path not in known:
            known[path] = path if (images.folder / path).is_file() else tree.whole_path(path)
        return known[path]

    return on_disk


def read_row(
    name: str,
    record: dict[str, Any],
    number: int,
    scale: LevelScale | None = None,
    profile: ScoreProfile = TRAINING_CONSISTENT,
) -> tuple[TrainingRow, str | None]:
    """One record as a row, and the level that its text says (None for "interpret"). Raises RowError."""
    if name == ROWS:
        row = from_record(record)
    elif name == QSIT:
        row = _rating(record, scale)
    else:
        row = _conversation(record, number, name)
    if row.task != "score":
        return row, None
    level = level_said(row.answer, profile)
    if level is None:
        raise RowError(f"the answer {row.answer!r:.80} is not {profile.answer_prefix!r} and a level")
    return row, level


def row_of(record: dict[str, Any], number: int, source: str) -> TrainingRow:
    """A record of any of these forms, told by its keys and its id. Raises RowError.

    ``source``: named in rows that do not say where they come from.
    """
    if "messages" in record:
        return from_record(record)
    if "->" in str(record.get("id")):
        return _rating(record, None)
    return _conversation(record, number, source)


def _conversation(record: dict[str, Any], number: int, source: str) -> TrainingRow:
    return TrainingRow(
        id=str(record.get("id") or f"{source}-{number}"),
        image=_images(record),
        task="interpret",
        messages=messages_of(record.get("conversations")),
        source=source,
    )


def _images(record: dict[str, Any]) -> tuple[str, ...]:
    """A row of LLaVA's names one image, a list of them, or has no key ``image``."""
    given = record.get("image")
    images = given if isinstance(given, list) else [] if given is None else [given]
    if not all(isinstance(image, str) and image for image in images):
        raise RowError(f"its image must be a path or a list of paths, got {given!r:.60}")
    return tuple(image.replace("\\", "/") for image in images)


def _rating(record: dict[str, Any], scale: LevelScale | None) -> TrainingRow:
    """A row of Q-SiT's JSON."""
    images, identity = _images(record), str(record.get("id"))
    try:
        mos = float(identity.rsplit("->", 1)[1])
    except (IndexError, ValueError):
        raise RowError(f"its id must be like photo.jpg->63.6, got {identity!r}") from None
    image = "".join(images[:1])
    scale = scale or SCALES.get(image.split("/")[0])
    if scale is None:
        raise RowError(f"{image!r} is in no folder named like a level scale ({', '.join(SCALES)}): give --scale")
    return TrainingRow(
        id=identity,
        image=images,
        task="score",
        messages=messages_of(record.get("conversations")),
        mos=mos,
        level_probs=rounded(scale.soft(mos)) if scale.is_possible(mos) else None,
        source=scale.name,
        split="training",
    )


def _level_problem(row: TrainingRow, said: str | None, scale: LevelScale | None) -> tuple[str, str] | None:
    """What is wrong between a rating on this scale and the level in its text, as kind and words."""
    if said is None or scale is None or row.mos is None:
        return None
    level = scale.level(row.mos)
    if level is None:
        return (
            OUT_OF_RANGE,
            f"{row.mos} is outside {scale.low:g} to {scale.high:g}, which {scale.name} cuts into levels",
        )
    if level != said:
        return DISAGREEMENT, f"the text says {said}, a MOS of {row.mos} is {level} on the scale {scale.name}"
    return None
