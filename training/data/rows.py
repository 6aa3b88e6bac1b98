"""One training sample: its JSONL form, which everything here reads and writes, LLaVA's form, and the words of a rating.

The JSONL form: ``{"id", "image", "task", "messages", "mos", "level_probs", "source", "split"}``, and where they are
known ``"quality"`` and ``"group"``. ``image`` is a text, a list of texts or null. ``messages`` is what chat templates
of transformers take: turns of ``user`` and ``assistant``, whose ``content`` is a list of ``{"type": "image"}`` and
``{"type": "text", "text": …}``. LLaVA's form, in which Q-SiT's data is published: ``{"id", "image", "conversations"}``
with turns of ``human`` and ``gpt``, and each image as ``<image>`` in the text; a row without images has no key
``image``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path, PurePosixPath
from typing import Any

from qsit_plugin.errors import QSiTError
from qsit_plugin.protocol import LEVELS, ScoreProfile
from qsit_plugin.row_file import write_whole

IMAGE_MARK = "<image>"
TASKS = ("score", "interpret")
ROLES = {"human": "user", "gpt": "assistant"}
"""LLaVA's names of the two speakers, and transformers'."""


class RowError(QSiTError, ValueError):
    """A row that cannot be trained on; the message says why. ``kind``: under which of ``checks.Problems`` it counts."""

    def __init__(self, message: str, kind: str = "bad row"):
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True)
class TrainingRow:
    """One sample.

    ``image``: path with forward slashes, relative to a folder that the user names; a tuple of two or more; None for a
    row of text alone (a list of one becomes its path, an empty one None). ``messages`` hold one image part for each, in
    their order. ``task``: "score" (one image, an answer with a level) or "interpret" (any other). ``mos``: as
    published, on the dataset's own scale; None where ``task`` is "interpret". ``level_probs``: excellent to bad, or
    None. ``source``: where the row comes from. ``split``: the official one, or None. ``quality``: where the rating
    stands on its range, in [0, 1], higher is better whatever the direction of the scale; None where it is not known.
    ``group``: of rows that belong together (a scene, a distortion), or None. Raises RowError for anything else.
    """

    id: str
    image: str | tuple[str, ...] | None
    task: str
    messages: list[dict[str, Any]]
    mos: float | None = None
    level_probs: tuple[float, ...] | None = None
    source: str = ""
    split: str | None = None
    quality: float | None = None
    group: str | None = None

    def __post_init__(self) -> None:
        if isinstance(self.image, list | tuple):
            several = tuple(self.image)
            object.__setattr__(self, "image", several if len(several) > 1 else next(iter(several), None))
        for image in self.images:
            _check_path(image)
        if self.task not in TASKS:
            raise RowError(f"the task is {self.task!r}: it must be one of {', '.join(TASKS)}")
        shown = _image_turns(self.messages)
        if len(shown) != len(self.images):
            raise RowError(f"it names {len(self.images)} images, but its conversation shows {len(shown)}")
        if self.task == "score" and shown != [0]:
            raise RowError(
                f"it is a rating, which must show one image, in the first turn; it shows {len(shown)} images"
            )
        if not isinstance(self.id, str) or not self.id:
            raise RowError(f"its id must be a text, got {self.id!r}")
        try:
            json.dumps([self.id, self.images, self.source, self.group, self.messages], ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise RowError("it has half of a surrogate pair (such as \\ud800), which is no character") from None
        if self.mos is not None and not (isinstance(self.mos, int | float) and math.isfinite(self.mos)):
            raise RowError(f"its MOS must be a finite number, got {self.mos!r}")
        if self.quality is not None and not (isinstance(self.quality, int | float) and 0 <= self.quality <= 1):
            raise RowError(f"its quality must be a number from 0 to 1, got {self.quality!r}")
        if self.group is not None and not isinstance(self.group, str):
            raise RowError(f"its group must be a text, got {self.group!r}")
        if self.level_probs is not None:
            object.__setattr__(self, "level_probs", _distribution(self.level_probs))

    @property
    def images(self) -> tuple[str, ...]:
        """The paths of its images: none, one or several."""
        return self.image if isinstance(self.image, tuple) else () if self.image is None else (self.image,)

    @property
    def answer(self) -> str:
        """The text of the first answer."""
        return "".join(part["text"] for part in self.messages[1]["content"])


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


def level_in(answer: str, profile: ScoreProfile) -> str | None:
    """The level in an answer that ``score_messages`` has worded; None for any other text."""
    for level, word in zip(LEVELS, profile.level_words, strict=True):
        if answer == f"{profile.answer_prefix}{word}.":
            return level
    return None


def only_image(row: TrainingRow) -> str:
    """The path of a row's image, for what looks at one. Raises RowError for a row without images or with several."""
    if len(row.images) != 1:
        raise RowError(
            f"row {row.id} has {len(row.images)} images: a model is validated on rows of one image each; take it out "
            "of the validation rows"
        )
    return row.images[0]


def _check_path(image: Any) -> None:
    if not isinstance(image, str) or not image.strip():
        raise RowError(f"it names no image, but {image!r}")
    path = PurePosixPath(image)
    if path.is_absolute() or ".." in path.parts or "\\" in image or ":" in path.parts[0]:
        raise RowError(f"the image path must be relative, with forward slashes and without '..'; got {image!r}")


def _image_turns(messages: Any) -> list[int]:
    """The turn that each image is in. Raises RowError unless turns of user and assistant, each with text, alternate and
    only the user's have images."""
    if not isinstance(messages, list) or not messages or len(messages) % 2:
        raise RowError("its conversation must be pairs of a question and an answer")
    images = []
    for number, turn in enumerate(messages):
        role = ("user", "assistant")[number % 2]
        parts = turn.get("content") if isinstance(turn, dict) and turn.get("role") == role else None
        if not isinstance(parts, list) or not all(isinstance(part, dict) for part in parts):
            raise RowError(f"turn {number + 1} of its conversation must be the {role}'s, with a list as content")
        texts = [part.get("text") for part in parts if part.get("type") == "text"]
        marks = [part for part in parts if part.get("type") == "image"]
        if len(texts) + len(marks) != len(parts) or not all(isinstance(text, str) for text in texts):
            raise RowError(f"turn {number + 1} of its conversation has a part that is neither text nor image")
        if not "".join(texts).strip():
            raise RowError(f"turn {number + 1} of its conversation ({role}) has no text")
        if marks and role == "assistant":
            raise RowError(
                f"turn {number + 1} of its conversation is an answer with an image: only questions show some"
            )
        images += [number] * len(marks)
    return images


def _distribution(values: Any) -> tuple[float, ...]:
    if not isinstance(values, list | tuple) or len(values) != len(LEVELS):
        raise RowError(f"level_probs must be five numbers, excellent to bad; got {values!r}")
    if not all(isinstance(value, int | float) and value >= 0 for value in values) or abs(sum(values) - 1) > 1e-3:
        raise RowError(f"level_probs must be at least 0 and sum to 1; got {list(values)}")
    return tuple(float(value) for value in values)


def from_record(record: dict[str, Any]) -> TrainingRow:
    """A row of our JSONL. Raises RowError for a missing or an unknown key, and for what ``TrainingRow`` refuses."""
    known = {field.name for field in fields(TrainingRow)}
    missing, unknown = {"id", "image", "task", "messages"} - record.keys(), record.keys() - known
    if missing or unknown:
        raise RowError(f"missing keys {sorted(missing)}, unknown keys {sorted(unknown)}")
    return TrainingRow(**record)


def to_record(row: TrainingRow) -> dict[str, Any]:
    """As a row of our JSONL, JSON-ready."""
    record = {name: list(value) if isinstance(value, tuple) else value for name, value in vars(row).items()}
    return {name: value for name, value in record.items() if value is not None or name not in ("quality", "group")}


def messages_of(conversations: Any) -> list[dict[str, Any]]:
    """LLaVA's turns as ours; the order of image and text is kept. Raises RowError for malformed ones."""
    if not isinstance(conversations, list):
        raise RowError(f"it has no conversations, but {conversations!r:.40}")
    messages = []
    for turn in conversations:
        if not isinstance(turn, dict) or turn.get("from") not in ROLES or not isinstance(turn.get("value"), str):
            raise RowError(f"a turn must have 'from' (human or gpt) and 'value'; got {turn!r:.60}")
        messages.append({"role": ROLES[turn["from"]], "content": _parts(turn["value"])})
    return messages


def _parts(value: str) -> list[dict[str, Any]]:
    """Text and image in their order; the line breaks between the two are the format's, not the text's. So are spaces
    beside a single image, but not those of "compare <image> and <image>"."""
    parts: list[dict[str, Any]] = []
    around = "\n" if value.count(IMAGE_MARK) > 1 else None
    for number, text in enumerate(value.split(IMAGE_MARK)):
        if number:
            parts.append({"type": "image"})
        if text.strip():
            parts.append({"type": "text", "text": text.strip(around) if IMAGE_MARK in value else text})
    return parts


def to_llava(row: TrainingRow) -> dict[str, Any]:
    """As a row of the published JSON files, which LLaVA-NeXT's trainer reads."""
    speaker = {role: name for name, role in ROLES.items()}
    return {
        "id": row.id,
        **({"image": list(row.images) if len(row.images) > 1 else row.image} if row.images else {}),
        "conversations": [
            {
                "from": speaker[turn["role"]],
                "value": "\n".join(part.get("text", IMAGE_MARK) for part in turn["content"]),
            }
            for turn in row.messages
        ],
    }


def write_rows(path: str | Path, rows: Iterable[TrainingRow]) -> Path:
    """Write ``.jsonl`` (ours) or ``.json`` (LLaVA's, laid out as published). Raises ValueError for other names."""
    path = Path(path)
    if path.suffix.lower() == ".jsonl":
        text = "".join(json.dumps(to_record(row), ensure_ascii=False) + "\n" for row in rows)
    elif path.suffix.lower() == ".json":
        text = json.dumps([to_llava(row) for row in rows], indent=4)
    else:
        raise ValueError(f"{path} must end in .jsonl (this package's rows) or .json (LLaVA's)")
    write_whole(path, text)
    return path
