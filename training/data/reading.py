"""What the record formats share: image paths, numbers, levels, and a rating as a row."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qsit_plugin.evaluation.datasets.locate import path_below
from qsit_plugin.evaluation.datasets.ratings import DatasetError
from qsit_plugin.evaluation.datasets.tables import as_number
from qsit_plugin.protocol import TRAINING_CONSISTENT, ScoreProfile

from ..levels import SCALES, LevelScale
from .conversion import rounded
from .rows import RowError, TrainingRow, level_in, messages_of, score_messages


@dataclass(frozen=True)
class Reading:
    """With what a record is read. All methods raise RowError.

    ``source``: of rows that name none. ``scale``: of the ratings, where the user gives one.
    ``profile``: how ratings are worded. ``folder``: of the images; absolute paths below it are accepted. ``left_out``:
    what rows cannot hold and readers take out, counted by its name.
    """

    source: str
    scale: LevelScale | None = None
    profile: ScoreProfile = TRAINING_CONSISTENT
    folder: Path | None = None
    left_out: Counter[str] = field(default_factory=Counter)

    def id_of(self, record: dict[str, Any], position: int) -> str:
        """The record's own id, or one of the source and the record's place in the file."""
        return str(record.get("id") or f"{self.source}-{position}")

    def images(self, named: Any) -> tuple[str, ...]:
        """Image paths from what a record names: nothing, a path, ``{"path": …}``, or a list of these."""
        names = [] if named is None else named if isinstance(named, list) else [named]
        return tuple(map(self._path, names))

    def one_image(self, record: dict[str, Any]) -> str:
        """The one image of a rating, under ``image`` or ``img_path``."""
        images = self.images(record.get("image", record.get("img_path")))
        if len(images) != 1:
            raise RowError(f"a rating is of one image, this is of {len(images)}" if images else "it names no image")
        return images[0]

    def _path(self, named: Any) -> str:
        path = named.get("path") if isinstance(named, dict) else named
        if not isinstance(path, str) or not path:
            raise RowError(f"it names no image, but {named!r:.60}")
        below = None if self.folder is None else path_below(self.folder, path)
        return path.replace("\\", "/") if below is None else below

    def scale_of(self, image: str) -> LevelScale:
        """The scale that the user gives, or that of the first folder of the image's path."""
        scale = self.scale or SCALES.get(image.split("/")[0])
        if scale is None:
            raise RowError(
                f"{image!r} is in no folder named like a level scale ({', '.join(SCALES)}): give --scale, or --range"
            )
        return scale


def number(record: dict[str, Any], key: str) -> float | None:
    """A finite number, also one as text; None where there is none. Raises RowError."""
    value = record.get(key)
    try:
        return None if value is None else as_number(str(value), f"its {key}")
    except DatasetError as error:
        raise RowError(str(error)) from None


def mos_in_id(identity: str) -> float:
    """The rating in an id such as ``photo.jpg->63.6``. Raises RowError."""
    try:
        return float(identity.rsplit("->", 1)[1])
    except (IndexError, ValueError):
        raise RowError(f"its id must be like photo.jpg->63.6, got {identity!r}") from None


def level_of_answer(answer: str, profile: ScoreProfile) -> str:
    """The level in an answer that has the profile's words. Raises RowError for any other answer."""
    level = level_in(answer, profile)
    if level is None:
        raise RowError(f"the answer {answer!r:.80} is not {profile.answer_prefix!r} and a level")
    return level


def rating(
    record: dict[str, Any],
    position: int,
    reading: Reading,
    *,
    mos: float | None,
    scale: LevelScale | None,
    sd: float | None = None,
    level_probs: Any = None,
) -> TrainingRow:
    """A rating in the profile's question and answer, whatever the file asks: a score is read after these alone.

    Its level is that of the file's answer; without one, that of the rating. ``level_probs``: as the file has them; by
    default made from ``mos`` and ``sd``. Raises RowError where neither a level nor a rating is there.
    """
    image = reading.one_image(record)
    level = _level(record, mos, scale)
    if level_probs is None and mos is not None and scale is not None and scale.is_possible(mos):
        level_probs = rounded(scale.soft(mos, sd))
    return TrainingRow(
        id=reading.id_of(record, position) if mos is None else str(record.get("id") or f"{image}->{mos!r}"),
        image=image,
        task="score",
        messages=score_messages(level, reading.profile),
        mos=mos,
        level_probs=level_probs,
        source=reading.source if scale is None else scale.name,
    )


def _level(record: dict[str, Any], mos: float | None, scale: LevelScale | None) -> str:
    if record.get("conversations") is not None:
        turns = messages_of(record["conversations"])
        answer = "".join(part.get("text", "") for part in turns[1]["content"]) if len(turns) > 1 else ""
        return level_of_answer(answer, TRAINING_CONSISTENT)  # the wording of the published files
    if mos is None or scale is None:
        raise RowError("it has neither a rating nor an answer that says a level")
    level = scale.level(mos)
    if level is None:
        raise RowError(f"{mos} is outside {scale.low:g} to {scale.high:g}, which {scale.name} cuts into levels")
    return level
