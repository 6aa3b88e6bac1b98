"""What a conversion to training rows starts from and ends with, and how a rating is worded."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qsit_plugin.evaluation.ratings import DatasetError
from qsit_plugin.protocol import LEVELS, ScoreProfile

from .levels import LevelScale
from .problems import Problems
from .rows import TrainingRow


@dataclass
class Conversion:
    """The rows, and what became of the others.

    ``levels``: how many rows say each level. ``dropped``: rated images outside the range that is cut into levels, left
    out as the published data leaves them out; no fault of theirs. ``problems``: what is wrong with a row.
    """

    rows: list[TrainingRow] = field(default_factory=list)
    twins: int = 0
    """Images that were left out since another split has a near twin of them."""
    levels: Counter[str] = field(default_factory=Counter)
    dropped: int = 0
    problems: Problems = field(default_factory=Problems)

    def add(self, row: TrainingRow, level: str | None) -> None:
        self.rows.append(row)
        if level is not None:
            self.levels[level] += 1


@dataclass(frozen=True)
class Images:
    """Where images lie. Paths in the rows will be relative to ``root``. ``check``: whether each must be there."""

    folder: Path
    root: Path
    check: bool = True

    @property
    def prefix(self) -> str:
        """The folder's path below the root, with a slash at its end; nothing where both are the same."""
        folder, root = Path(os.path.abspath(self.folder)), Path(os.path.abspath(self.root))
        if not folder.is_relative_to(root):
            raise DatasetError(f"the image folder {self.folder} is not inside the root {self.root}")
        below = folder.relative_to(root).as_posix()
        return "" if below == "." else f"{below}/"


def check_wording(profile: ScoreProfile) -> None:
    """Raise ValueError for a profile that reads level words apart from the prefix, such as the official one."""
    if profile.answer_prefix != profile.answer_prefix.rstrip():
        raise ValueError(
            f"the answer prefix {profile.answer_prefix!r} ends in a space: its level words are read apart from it, and "
            "a text of both would train other tokens. Give the profile 'training', or one like it"
        )


def score_messages(level: str, profile: ScoreProfile) -> list[dict[str, Any]]:
    """The question for a rating and its answer, with the image after the question as in the published data."""
    question = [{"type": "text", "text": profile.question}, {"type": "image"}]
    answer = f"{profile.answer_prefix}{profile.level_words[LEVELS.index(level)]}."
    return [
        {"role": "user", "content": question},
        {"role": "assistant", "content": [{"type": "text", "text": answer}]},
    ]


def level_said(answer: str, profile: ScoreProfile) -> str | None:
    """The level in an answer that ``score_messages`` has worded; None for any other text."""
    for level, word in zip(LEVELS, profile.level_words, strict=True):
        if answer == f"{profile.answer_prefix}{word}.":
            return level
    return None


def range_text(scale: LevelScale) -> str:
    """``"koniq (0 to 100)"``: a scale and the ratings that it allows."""
    low, high = scale.possible or (scale.low, scale.high)
    return f"{scale.name} ({low:g} to {high:g})"


def rounded(probabilities: Sequence[float]) -> tuple[float, ...]:
    """Six decimals, for files that people look into."""
    return tuple(round(p, 6) for p in probabilities)
