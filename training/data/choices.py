"""Multiple-choice questions among training rows, read as Q-Bench's: what ``accuracy`` is measured on.

A row's question is a text, then one option a line ("A. blur"), perhaps an instruction; its answer is the letter
("B", "B.", "B. noise") or the option's text. This is the form of Q-Instruct and of LLVisionQA.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from qsit_plugin import protocol
from qsit_plugin.evaluation.multiple_choice import TYPES, Question

from .rows import TrainingRow

_OPTION = re.compile(r"^\s*\(?([A-Z])[.):]\s*(\S.*?)\s*$")
_ANSWER = re.compile(r"^\(?([A-Z])(?:[.):](?:\s|$)|\)?$)")
_BE_OR_DO = ("is", "are", "was", "were", "do", "does", "did", "has", "have")
_YES_NO = frozenset((*_BE_OR_DO, "can", "could", "will", "would", "should"))
_WHAT = frozenset(("what", "which"))


def choice_of(row: TrainingRow) -> Question | None:
    """The first turn of a row as a multiple-choice question; None where it lists no options, or the row has no image or
    several.

    Options must be two or more lines that begin with A, B, C … in this order. What stands below them is left out: the
    question is put in the wording of Q-SiT's own evaluation. ``type`` follows from the question's first word, see
    ``kind_of``. Raises ValueError where no option is the row's answer.
    """
    if row.task != "interpret" or len(row.images) != 1:
        return None
    lines = "".join(part.get("text", "") for part in row.messages[0]["content"]).splitlines()
    found = [(place, match) for place, line in enumerate(lines) if (match := _OPTION.match(line))]
    options = tuple(match[2] for _, match in found)
    if not 2 <= len(options) <= 26 or [match[1] for _, match in found] != protocol.letters(len(options)):
        return None
    text = "\n".join(lines[: found[0][0]]).strip()
    if not text:
        return None
    return Question(row.images[0], text, options, _right(row, options), kind_of(text))


def kind_of(question: str) -> str | None:
    """yes-no, what or how by the first word ("Is", "Which", "How" …), as Q-Bench sorts questions; None for others."""
    first = re.match(r"\w+", question.strip().lower())
    word = first[0] if first else ""
    if word in _YES_NO:
        return TYPES[0]
    return TYPES[1] if word in _WHAT else TYPES[2] if word == "how" else None


def _right(row: TrainingRow, options: Sequence[str]) -> int:
    answer = row.answer.strip()
    texts = [option.rstrip(".").lower() for option in options]
    if answer.rstrip(".").lower() in texts:
        return texts.index(answer.rstrip(".").lower())
    letters, match = protocol.letters(len(options)), _ANSWER.match(answer)
    if match and match[1] in letters:
        return letters.index(match[1])
    raise ValueError(
        f"row {row.id}: the answer {answer[:60]!r} is none of its options {', '.join(options)} and none of their "
        f"letters {', '.join(letters)}: correct the row, or take it out"
    )
