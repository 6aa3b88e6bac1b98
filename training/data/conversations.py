"""From files of conversations and worded ratings to training rows: one loop over the records, whatever their format."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from qsit_plugin.evaluation.datasets.locate import FileTree
from qsit_plugin.evaluation.datasets.ratings import DatasetError
from qsit_plugin.protocol import TRAINING_CONSISTENT, ScoreProfile

from ..levels import LevelScale
from .checks import DISAGREEMENT, MISSING_IMAGE, OUT_OF_RANGE
from .containers import SPLIT, read_any
from .conversion import Conversion, Images, check_split
from .formats import FORMATS, ROW_SCALES
from .reading import Reading, level_of_answer
from .rows import RowError, check_wording

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
    form = FORMATS[name]
    if form.rewords:
        check_wording(profile)
    result = Conversion()
    records = _of_split(read_any(path, images.folder, result.problems), split, path)
    on_disk, reading = _finder(images), Reading(name, scale, profile, images.folder)
    for position, record in enumerate(records):
        try:
            row = form.read(record, position, reading)
            level = level_of_answer(row.answer, profile) if row.task == "score" else None
            rated_on = None
            if level is not None and row.mos is not None and (rated_on := scale or ROW_SCALES.get(row.source)):
                result.rating(rated_on, row.mos)
                _check_level(row.mos, level, rated_on)
                row = replace(row, quality=rated_on.score(row.mos))
            paths = tuple(images.prefix + on_disk(path) for path in row.images)
            result.add(replace(row, image=paths), level, rated_on)
        except RowError as error:
            result.problems.add(error.kind, f"row {position} ({record.get('id', 'without id')}): {error}")
    result.notes += [f"{what}: left out of {count:,} rows" for what, count in reading.left_out.items() if count]
    result.check_scales(profile=profile)
    return result


def _of_split(records: list[dict[str, Any]], split: str | None, path: str | Path) -> list[dict[str, Any]]:
    """The records of a container's split. Test rows must not slip into training because nobody named a split."""
    found = [record.pop(SPLIT, None) for record in records]
    wanted = split or ("training" if "training" in found else "all")
    check_split(str(path), wanted, found)
    return [record for record, name in zip(records, found, strict=True) if wanted in ("all", name)]


def _finder(images: Images) -> Callable[[str], str]:
    """An image's path as it is on the disk, where case or the encoding of accents differ. It raises RowError where the
    image is not there. Each is looked for once: conversations share images."""
    if not images.check:
        return lambda path: path
    if not images.folder.is_dir():
        raise DatasetError(f"{images.folder}: no such image folder")
    tree = FileTree(images.folder)

    @cache
    def on_disk(path: str) -> str:
        found = path if (images.folder / path).is_file() else tree.whole_path(path)
        if found is None:
            raise RowError(f"{path} is not in {images.folder}", MISSING_IMAGE)
        return found

    return on_disk


def _check_level(mos: float, written: str, scale: LevelScale) -> None:
    """Raise RowError unless a rating is of the level that is written in its text."""
    level = scale.level(mos)
    if level is None:
        limits = f"{scale.low:g} to {scale.high:g}"
        raise RowError(f"{mos} is outside {limits}, which {scale.name} cuts into levels", OUT_OF_RANGE)
    if level != written:
        raise RowError(f"the text says {written}, a MOS of {mos} is {level} on the scale {scale.name}", DISAGREEMENT)
