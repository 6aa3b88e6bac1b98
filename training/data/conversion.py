"""What a conversion to training rows starts from and ends with: the folder of images, the rows, the warnings."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath

from qsit_plugin.evaluation.datasets.locate import path_below
from qsit_plugin.evaluation.datasets.ratings import DatasetError
from qsit_plugin.protocol import ScoreProfile

from ..levels import LevelScale
from .checks import LabelError, Problems, contradiction_text, label_error, off_range_text, range_warning
from .rows import TrainingRow

RATING, VOTES = "rating", "votes"
SOFT_LABELS = (RATING, VOTES)
"""From what soft labels are made: the rating and its deviation on the range, or the shares of the votes."""


@dataclass
class Conversion:
    """The rows, and what became of the others.

    ``twins``: how many images were left out since another split has a near twin of them. ``levels``: how many rows have
    each level. ``dropped``: rated images outside the range that is cut into levels, left out as the published data
    leaves them out. ``problems``: what is wrong with the others. ``ratings``: all that the file holds, by the scale
    that cuts them. ``warnings``: ranges that do not fit the ratings, and soft labels that are not on the range.
    ``notes``: what else a reader of the figures must know. ``unscaled``: rows without a rating, or whose scale is not
    known.
    """

    rows: list[TrainingRow] = field(default_factory=list)
    twins: int = 0
    levels: Counter[str] = field(default_factory=Counter)
    dropped: int = 0
    problems: Problems = field(default_factory=Problems)
    ratings: dict[LevelScale, list[float]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    unscaled: list[TrainingRow] = field(default_factory=list)
    _scored: dict[LevelScale, list[TrainingRow]] = field(default_factory=dict, repr=False)

    def rating(self, scale: LevelScale, mos: float) -> None:
        """Note a rating of the file, whatever becomes of its row."""
        self.ratings.setdefault(scale, []).append(mos)

    def add(self, row: TrainingRow, level: str | None, scale: LevelScale | None) -> None:
        """Take a row; ``scale``: that of its rating, None where there is no rating or its scale is not known."""
        self.rows.append(row)
        if level is not None:
            self.levels[level] += 1
        (self.unscaled if scale is None else self._scored.setdefault(scale, [])).append(row)

    def label_errors(self) -> dict[LevelScale, LabelError]:
        """The difference between soft labels and ratings, for each scale that has some of both."""
        errors = {scale: label_error(scale, rows) for scale, rows in self._scored.items()}
        return {scale: error for scale, error in errors.items() if error is not None}

    def check_scales(self, soft: str = RATING, profile: ScoreProfile | None = None) -> None:
        """Fill ``warnings``, and give each as a ``ScaleWarning`` to the caller of the function that converts.

        ``soft``: from what the labels were made; shares of votes are on another ruler because they were asked for.
        ``profile``: that of rows whose labels and words others have made.
        """
        found = [range_warning(scale, ratings) for scale, ratings in self.ratings.items()]
        if soft == RATING:
            found += [off_range_text(scale, error) for scale, error in self.label_errors().items()]
        if profile is not None:
            found.append(contradiction_text(self.unscaled, profile))
        self.warnings += filter(None, found)
        for text in self.warnings:
            warnings.warn(text, ScaleWarning, stacklevel=3)


class ScaleWarning(UserWarning):
    """The range that is cut into levels does not fit the ratings, or soft labels do not lie on it."""


@dataclass(frozen=True)
class Images:
    """Where images lie. Paths in the rows will be relative to ``root``. ``check``: whether each must be there.

    Raises DatasetError where the folder is not inside the root.
    """

    folder: Path
    root: Path
    check: bool = True

    def __post_init__(self) -> None:
        if not Path(os.path.abspath(self.folder)).is_relative_to(os.path.abspath(self.root)):
            raise DatasetError(f"the image folder {self.folder} is not inside the root {self.root}")

    @property
    def prefix(self) -> str:
        """The folder's path below the root, with a slash at its end; nothing where both are the same."""
        below = Path(os.path.relpath(self.folder, self.root)).as_posix()
        return "" if below == "." else f"{below}/"

    def row_path(self, file: Path) -> str | None:
        """The path of a file below the root, as rows have it; None for a file outside."""
        below = path_below(self.folder, os.path.abspath(file))
        return path_below(self.root, os.path.abspath(file)) if below is None else self.prefix + below

    def unseen_path(self, image: str) -> str | None:
        """The same for the name in a list, without a look at the disk; a relative one is below the folder."""
        if Path(image).is_absolute() or PureWindowsPath(image).drive:
            return self.row_path(Path(image)) if Path(image).is_absolute() else None
        return self.prefix + image


def range_text(scale: LevelScale) -> str:
    """``"koniq (0 to 100)"``: a scale and the ratings that it allows."""
    low, high = scale.possible or (scale.low, scale.high)
    return f"{scale.name} ({low:g} to {high:g})"


def rounded(probabilities: Sequence[float]) -> tuple[float, ...]:
    """Six decimals, for files that people look into."""
    return tuple(round(p, 6) for p in probabilities)


def check_split(title: str, split: str, found: Collection[str | None]) -> None:
    """Raise DatasetError unless a split is "all", or one of those that were found."""
    if split != "all" and split not in found:
        splits = ", ".join([*sorted({name for name in found if name}), "all"])
        raise DatasetError(f"{title} has no split {split!r}: give one of {splits}")
