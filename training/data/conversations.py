"""From files of conversations and worded ratings to training rows: one table of formats, one loop over the records."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from qsit_plugin.evaluation.datasets.locate import FileTree
from qsit_plugin.evaluation.datasets.ratings import DatasetError
from qsit_plugin.protocol import TRAINING_CONSISTENT, ScoreProfile

from ..levels import SCALES, LevelScale
from . import deqa, llava, qalign, swift
from .containers import SPLIT, read_any
from .contradiction import contradiction_text
from .conversion import Conversion, Images, ScaleWarning, check_wording
from .problems import BAD_ROW, DISAGREEMENT, MISSING_IMAGE, OUT_OF_RANGE
from .reading import Reading, level_of_answer, one_or_many
from .rows import RowError, TrainingRow, from_record

QSIT, Q_INSTRUCT, LLAVA, QALIGN, DEQA, SWIFT, ROWS = "qsit", "q_instruct", "llava", "qalign", "deqa", "swift", "jsonl"
ROW_SCALES = {**SCALES, deqa.SCALE.name: deqa.SCALE}
"""What the ratings of a row are on, by its source."""


@dataclass(frozen=True)
class Format:
    """How a record is read (it, its place in the file, and with what); whether ``--range`` means something to it; and
    whether its ratings are put into the profile's words."""

    read: Callable[[dict[str, Any], int, Reading], TrainingRow]
    ranged: bool = True
    rewords: bool = False


FORMATS = {
    QSIT: Format(llava.published_rating),
    Q_INSTRUCT: Format(llava.conversation, ranged=False),
    LLAVA: Format(llava.conversation, ranged=False),
    QALIGN: Format(qalign.read, rewords=True),
    DEQA: Format(deqa.read, rewords=True),
    SWIFT: Format(swift.read, ranged=False, rewords=True),
    ROWS: Format(lambda record, position, reading: from_record(record)),
}
NAMES = tuple(FORMATS)


def convert_conversations(
    name: str,
    path: str | Path,
    images: Images,
    *,
    scale: LevelScale | None = None,
    profile: ScoreProfile = TRAINING_CONSISTENT,
    split: str | None = None,
) -> Conversion:
    """A file of conversations as rows, in its order.

    Args:
        name: one of ``FORMATS``. "qsit": every row is a rating, its ``id`` is ``file->mos``. "q_instruct", "llava":
            LLaVA-style conversations. "qalign", "deqa", "swift": as Q-Align, DeQA-Score and ms-swift have them.
            "jsonl": what this package has written.
        path: JSON, JSON lines, or a container of such records; see ``containers.read_any``.
        scale: by which a rating and the level in its text are compared; by default named by the first folder of the
            image's path ("qsit", "qalign": koniq, spaq) or by ``source`` ("jsonl"; not compared where that names no
            scale).
        profile: how ratings are worded in the file; for "qalign" and "deqa", how they are to be worded.
        split: of a container that has some; by default the training split, or all where there is none.

    Gives a ``ScaleWarning`` for a range that does not fit the ratings, and for rows whose soft labels do not amount to
    their ratings, as those of KonIQ's votes; it is in the result's ``warnings``, too.
    Raises DatasetError for a file that is missing or holds no JSON objects; ModuleNotFoundError for a container whose
    library is missing.
    """
    if FORMATS[name].rewords:
        check_wording(profile)
    result = Conversion()
    records = _of_split(read_any(path, images.folder, result.problems), split, path)
    on_disk, reading = _finder(images), Reading(name, scale, profile, images.folder)
    for position, record in enumerate(records):
        label = f"row {position} ({record.get('id', 'without id')})"
        try:
            row = FORMATS[name].read(record, position, reading)
            level = level_of_answer(row.answer, profile) if row.task == "score" else None
        except RowError as error:
            result.problems.add(BAD_ROW, f"{label}: {error}")
            continue
        _take(result, row, level, scale or ROW_SCALES.get(row.source), label, images, on_disk)
    result.notes += [f"{what}: left out of {count:,} rows" for what, count in reading.left_out.items() if count]
    result.check_scales()
    if text := contradiction_text(result.unscaled, profile):
        result.warnings.append(text)
        warnings.warn(text, ScaleWarning, stacklevel=2)
    return result


def _of_split(records: list[dict[str, Any]], split: str | None, path: str | Path) -> list[dict[str, Any]]:
    """The records of a container's split. Test rows must not slip into training because nobody named a split."""
    found = [record.pop(SPLIT, None) for record in records]
    wanted = split or ("training" if "training" in found else "all")
    if wanted != "all" and wanted not in found:
        splits = ", ".join([*sorted({name for name in found if name}), "all"])
        raise DatasetError(f"{path} has no split {wanted!r}: give one of {splits}")
    return [record for record, name in zip(records, found, strict=True) if wanted in ("all", name)]


def _take(
    result: Conversion,
    row: TrainingRow,
    level: str | None,
    scale: LevelScale | None,
    label: str,
    images: Images,
    on_disk: Callable[[str], str | None],
) -> None:
    """Add the row, or what is wrong with it. ``scale``: of its rating, where that is known."""
    rated_on = None if level is None or row.mos is None else scale
    if rated_on is not None and row.mos is not None:
        result.rating(rated_on, row.mos)
        row = replace(row, quality=rated_on.score(row.mos))
    found = [on_disk(path) for path in row.images]
    if problem := _level_problem(row, level, rated_on):
        result.problems.add(problem[0], f"{label}: {problem[1]}")
    elif None in found:
        result.problems.add(MISSING_IMAGE, f"{label}: {row.images[found.index(None)]} is not in {images.folder}")
    else:
        result.add(replace(row, image=one_or_many([f"{images.prefix}{path}" for path in found])), level, rated_on)


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


def row_of(record: dict[str, Any], position: int, source: str) -> TrainingRow:
    """A record of a file that is trained on as it is: ours or LLaVA's, told by its keys and its id. Raises RowError.

    ``source``: named in rows that do not say where they come from.
    """
    name = _format_of(record)
    if FORMATS[name].rewords:
        raise RowError(f"it has the form of {name}: make rows of the file first, by qsit train convert {name}")
    return FORMATS[name].read(record, position, Reading(source))


def _format_of(record: dict[str, Any]) -> str:
    if "messages" in record:
        return ROWS if "task" in record else SWIFT
    if "query" in record:
        return SWIFT
    if "gt_score_norm" in record:
        return DEQA
    if "<|image|>" in str(record.get("conversations")):
        return QALIGN
    return QSIT if "->" in str(record.get("id")) else LLAVA


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
