"""Q-Bench's task A1 (perception): multiple-choice questions about a photo's quality, LLVisionQA.

Two accuracies, reported separately. "string": the model generates an answer, and Q-SiT's lenient rule parses it, as
published. "letters": the option whose letter has the highest next-token logit; one forward pass instead of a generated
text, and every answer can be parsed.

Sub-categories carry the labels of Q-Bench's own data: type 0 yes-no, 1 what, 2 how. lmms-eval names 1 "How" and 2
"What": figures from there have these two columns swapped.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qsit_plugin import protocol

from .datasets.json_records import read_records

if TYPE_CHECKING:
    from qsit_plugin.model import Look, QSiT

TYPES = ("yes-no", "what", "how")
CONCERNS = ("distortion", "other", "in-context distortion", "in-context other")
RULES = ("string", "letters")
FILLER = "N/A"
"""Stands in the Hub's table where a question has fewer than four options."""


@dataclass(frozen=True)
class Question:
    """One question: image file name, text, options, index of the right one, labels (None where the file has none)."""

    image: str
    text: str
    options: tuple[str, ...]
    answer: int
    type: str | None = None
    concern: str | None = None


def read_questions(path: str | os.PathLike[str]) -> list[Question]:
    """Questions in LLVisionQA's form or in that of its copy on the Hub, as a JSON array or one object a line.

    LLVisionQA: img_path, question, candidates, correct_ans, type, concern. Hub: image (a file name), question, option0
    to option3 ("N/A" where there is none), correct_choice (a letter), question_type, question_concern. Raises
    ValueError, with the entry's number, for anything else; the answers of the test half are not public, so it cannot be
    evaluated.
    """
    questions = []
    for number, row in enumerate(read_records(path)):
        try:
            questions.append(_question(row))
        except ValueError as error:
            raise ValueError(f"{path}: question {number} {error}") from None
    return questions


def _question(row: dict[str, Any]) -> Question:
    image = row.get("img_path", row.get("image"))
    if isinstance(image, dict):  # how the Hub's datasets library writes an image column
        image = image.get("path")
    if not image or not isinstance(image, str) or not row.get("question"):
        raise ValueError(f"needs img_path (or image, a file name) and question; it has {', '.join(row)}")
    if isinstance(row.get("candidates"), list):
        options = tuple(str(option) for option in row["candidates"])
    else:
        options = tuple(str(row[f"option{i}"]) for i in range(4) if row.get(f"option{i}") not in (None, FILLER))
    if not 2 <= len(options) <= 26:
        raise ValueError(f"has {len(options)} options, 2 to 26 are allowed (candidates, or option0 … option3)")
    return Question(
        image=image.replace("\\", "/"),
        text=str(row["question"]),
        options=options,
        answer=_answer(row, options),
        type=_label(row, TYPES, "type", "question_type"),
        concern=_label(row, CONCERNS, "concern", "question_concern"),
    )


def _answer(row: dict[str, Any], options: Sequence[str]) -> int:
    letters = protocol.letters(len(options))
    if row.get("correct_ans") in options:
        return options.index(row["correct_ans"])
    if row.get("correct_choice") in letters:
        return letters.index(row["correct_choice"])
    given = row.get("correct_ans", row.get("correct_choice"))
    raise ValueError(
        f"has no right answer among its options: {given!r} is neither of {', '.join(options)} nor of "
        f"{', '.join(letters)} (the answers of LLVisionQA's test half are not public; take the dev half)"
    )


def _label(row: dict[str, Any], labels: Sequence[str], *keys: str) -> str | None:
    """The name of a 0-based label, which some files hold as text; None where no key is there."""
    for key in keys:
        if row.get(key) is not None:
            if str(row[key]) not in {str(i) for i in range(len(labels))}:
                raise ValueError(f"has {key} {row[key]!r}; allowed are 0 to {len(labels) - 1} ({', '.join(labels)})")
            return labels[int(row[key])]
    return None


def prompt(question: Question) -> str:
    """The official wording. Its script ends every option with a line feed, the last one too."""
    return protocol.multiple_choice(question.text, question.options) + "\n"


def is_right(text: str, options: Sequence[str], answer: int) -> bool:
    """Q-SiT's lenient rule on a written answer, stripped of surrounding blanks.

    Right when the text is the letter, contains the letter with a full stop ("B. Blur"), is the option's text, or has
    the letter alone on a line. The rule does not look for wrong letters: "A. or B." is right for both.
    """
    letter, text = protocol.letters(len(options))[answer], text.strip()
    return text in (letter, options[answer]) or f"{letter}." in text or letter in text.split("\n")


@dataclass(frozen=True)
class Answered:
    """The result of one question: text and option probabilities (None where not asked for), or an error."""

    question: Question
    text: str | None = None
    probabilities: tuple[float, ...] | None = None
    error: str | None = None

    def right(self, rule: str) -> bool:
        if rule == "string":
            return self.text is not None and is_right(self.text, self.question.options, self.question.answer)
        if self.probabilities is None:
            return False
        return self.probabilities.index(max(self.probabilities)) == self.question.answer

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready row."""
        asked = self.question
        row: dict[str, Any] = {"image": asked.image, "question": asked.text, "options": list(asked.options)}
        row["correct_choice"] = protocol.letters(len(asked.options))[asked.answer]
        if self.error is not None:
            return row | {"error": self.error}
        if self.text is not None:
            row |= {"text": self.text, "string": self.right("string")}
        if self.probabilities is not None:
            row |= {"probabilities": list(self.probabilities), "letters": self.right("letters")}
        return row


def answer_questions(
    model: QSiT, questions: Iterable[Question], folder: str | os.PathLike[str], *, rules: Sequence[str] = RULES
) -> Iterator[Answered]:
    """Ask the model every question, lazily and in order; a photo that cannot be read gives an ``error``.

    Greedy answers of at most 200 tokens, as released. The image is encoded once for both rules.
    """
    from qsit_plugin.images.reading import ImageError

    for question in questions:
        try:
            look = model.encode(Path(folder) / question.image)
        except ImageError as error:
            yield Answered(question, error=str(error))
            continue
        yield answer_question(look, question, rules=rules)


def answer_question(look: Look, question: Question, *, rules: Sequence[str] = RULES) -> Answered:
    """Ask one question about an encoded image; ``question.image`` is not used."""
    text = look.ask(prompt(question)).text if "string" in rules else None
    shares = tuple(look.choose(question.text, question.options)) if "letters" in rules else None
    return Answered(question, text, shares)


def accuracy(answered: Sequence[Answered], rules: Sequence[str] = RULES) -> dict[str, Any]:
    """``{"task": "A1", "failed", "overall": {"n", "chance", "string", "letters"}, "types": {…}, "concerns": {…}}``.

    ``types`` and ``concerns`` hold one such group a label that occurs. Questions whose photo failed are counted in
    "failed" and nowhere else. "chance": accuracy of guessing, the mean of one over the number of options. Raises
    ValueError when no question was answered.
    """
    good = [one for one in answered if one.error is None]
    if not good:
        raise ValueError(f"none of {len(answered)} questions was answered: is the folder of images the right one?")
    return {
        "task": "A1",
        "failed": len(answered) - len(good),
        "overall": _group(good, rules),
        "types": _groups(good, rules, TYPES, "type"),
        "concerns": _groups(good, rules, CONCERNS, "concern"),
    }


def _groups(answered: Sequence[Answered], rules: Sequence[str], labels: Sequence[str], field: str) -> dict[str, Any]:
    parts = {label: [one for one in answered if getattr(one.question, field) == label] for label in labels}
    return {label: _group(part, rules) for label, part in parts.items() if part}


def _group(answered: Sequence[Answered], rules: Sequence[str]) -> dict[str, Any]:
    n = len(answered)
    chance = sum(1.0 / len(one.question.options) for one in answered) / n
    return {"n": n, "chance": chance} | {rule: sum(one.right(rule) for one in answered) / n for rule in rules}
