"""The record formats, one reader each: LLaVA's and Q-SiT's JSON, Q-Align's, DeQA-Score's, ms-swift's, and our rows.

A reader takes a record, its place in the file and a ``Reading``, and gives a row. Raises RowError.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from ..levels import SCALES, LevelScale
from .conversion import rounded
from .reading import Reading, mos_in_id, number, rating
from .rows import IMAGE_MARK, ROLES, RowError, TrainingRow, from_record, level_in, messages_of, score_messages

QSIT, Q_INSTRUCT, LLAVA, QALIGN, DEQA, SWIFT, ROWS = "qsit", "q_instruct", "llava", "qalign", "deqa", "swift", "jsonl"

# ---- LLaVA's JSON: conversations about images (Q-Instruct, LLaVA-Instruct-150K), and the ratings of Q-SiT ----


def conversation(record: dict[str, Any], position: int, reading: Reading) -> TrainingRow:
    """A conversation as it is; ``image`` may be a path, a list of paths, or missing."""
    return TrainingRow(
        id=reading.id_of(record, position),
        image=reading.images(record.get("image")),
        task="interpret",
        messages=messages_of(record.get("conversations")),
        source=reading.source,
    )


def published_rating(record: dict[str, Any], position: int, reading: Reading) -> TrainingRow:
    """A row of Q-SiT's JSON: its id is ``photo.jpg->63.6``, its texts are kept as they are."""
    image, identity = reading.one_image(record), str(record.get("id"))
    mos, scale = mos_in_id(identity), reading.scale_of(image)
    return TrainingRow(
        id=identity,
        image=image,
        task="score",
        messages=messages_of(record.get("conversations")),
        mos=mos,
        level_probs=rounded(scale.soft(mos)) if scale.is_possible(mos) else None,
        source=scale.name,
        split="training",
    )


# ---- Q-Align (arXiv 2312.17090): LLaVA's form with ten wordings of the question and <|image|> ----


def qalign(record: dict[str, Any], position: int, reading: Reading) -> TrainingRow:
    """A rating; without one in ``gt_score`` or the id, the level in the answer alone.

    ``{"id": "photo.jpg->63.6", "image": "koniq/photo.jpg", "conversations": [...]}``, in its fine-tuning splits also
    ``gt_score``, as text; its test splits are ``{"img_path", "gt_score"}`` alone. The levels are parts of the range of
    each dataset's training ratings, which for KonIQ and SPAQ are our scales.
    """
    mos = number(record, "gt_score")
    if mos is None and "->" in str(record.get("id")):
        mos = mos_in_id(str(record["id"]))
    scale = None if mos is None else reading.scale_of(reading.one_image(record))
    return rating(record, position, reading, mos=mos, scale=scale)


# ---- DeQA-Score (arXiv 2501.11561): ratings with deviation, and the soft labels that were made from them ----

DEQA_SCALE = LevelScale("deqa", 1, 5)
"""What ``gt_score_norm`` is on, in the files of all datasets."""
EDGE = 1e-6
"""DeQA closes the parts of the range on the right, we on the left: a rating on an edge has the word below it."""
SUM_WITHIN = 0.1
"""DeQA sets negative shares to 0 and accepts a mean that is .1 off then: the shares may sum to so much more than 1."""


def deqa(record: dict[str, Any], position: int, reading: Reading) -> TrainingRow:
    """A rating on ``DEQA_SCALE``, or where the user gives a scale, as the dataset published it.

    ``{"id": "photo.jpg->63.6", "image": "KONIQ/images/photo.jpg", "gt_score", "gt_score_norm", "std", "std_norm",
    "level_probs", "level_probs_org", "conversations"}``. ``_norm`` is the range of the dataset's ratings brought to 1
    to 5, from which words and ``level_probs`` (excellent to bad) are cut, too. ``level_probs_org`` do not sum to 1.
    """
    scale, ending = (DEQA_SCALE, "_norm") if reading.scale is None else (reading.scale, "")
    mos = number(record, f"gt_score{ending}")
    if mos is None:
        raise RowError(f"it has no gt_score{ending}" + ("; with --range, gt_score is taken" if ending else ""))
    sd, shares = number(record, f"std{ending}"), _summing_to_one(record.get("level_probs"))
    row = rating(record, position, reading, mos=mos, scale=scale, sd=sd, level_probs=shares)
    level = scale.level(mos)
    if level is not None and level_in(row.answer, reading.profile) == scale.level(max(mos - EDGE, scale.low)):
        return replace(row, messages=score_messages(level, reading.profile))
    return row


def _summing_to_one(shares: Any) -> Any:
    """What is no list of numbers whose sum is near 1 is left for ``TrainingRow`` to refuse."""
    if not isinstance(shares, list) or not all(isinstance(share, int | float) for share in shares):
        return shares
    total = sum(shares)
    return rounded([share / total for share in shares]) if abs(total - 1) <= SUM_WITHIN else shares


# ---- ms-swift, as JSON and JSONL ----

SYSTEM = "system prompt (the chat template of the checkpoint has its own)"
SPEAKERS = {role: name for name, role in ROLES.items()}


def swift(record: dict[str, Any], position: int, reading: Reading) -> TrainingRow:
    """A conversation; where the only answer is a level in the profile's words, a rating, asked in these words.

    ``{"messages": [{"role": "user", "content": "<image>Why?"}, …], "images": ["a.jpg"]}``; the content may also be a
    list of ``{"type": "text", "text"}`` and ``{"type": "image"}``, as TRL and transformers have it. The older form is
    ``{"query", "response", "history": [[query, response], …], "images"}``. Images without a mark in any text stand
    before the first question, as in ms-swift.
    """
    images = reading.images(record.get("images", record.get("image")))
    turns = _swift_turns(record, reading)
    messages = messages_of(turns)
    if images and turns and not any(IMAGE_MARK in turn["value"] for turn in turns):
        turns[0]["value"] = IMAGE_MARK * len(images) + turns[0]["value"]
        messages = messages_of(turns)
    level = level_in(turns[1]["value"], reading.profile) if len(turns) == 2 and len(images) == 1 else None
    return TrainingRow(
        id=reading.id_of(record, position),
        image=images,
        task="interpret" if level is None else "score",
        messages=messages if level is None else score_messages(level, reading.profile),
        source=str(record.get("source") or reading.source),
    )


def _swift_turns(record: dict[str, Any], reading: Reading) -> list[dict[str, Any]]:
    """The turns as LLaVA has them, without the system's."""
    messages = record.get("messages")
    if messages is None and "query" in record and "response" in record:
        history = record.get("history") or []
        if not isinstance(history, list) or not all(isinstance(pair, list) for pair in history):
            raise RowError(f"its history must be a list of pairs, got {history!r:.60}")
        texts = [*sum(history, []), record["query"], record["response"]]
        messages = [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(texts)]
    if not isinstance(messages, list) or not all(isinstance(turn, dict) for turn in messages):
        raise RowError("it has neither messages nor query and response")
    kept = [turn for turn in messages if turn.get("role") != "system"]
    reading.left_out[SYSTEM] += len(kept) < len(messages) or bool(record.get("system"))
    return [{"from": SPEAKERS.get(turn.get("role"), turn.get("role")), "value": _swift_text(turn.get("content"))}
            for turn in kept]  # fmt: skip


def _swift_text(content: Any) -> Any:
    if not isinstance(content, list) or not all(isinstance(part, dict) for part in content):
        return content
    return "\n".join(IMAGE_MARK if part.get("type") == "image" else str(part.get("text")) for part in content)


# ---- all of them by name ----


@dataclass(frozen=True)
class Format:
    """``read``: the reader. ``ranged``: whether ``--range`` means something to it. ``rewords``: whether its ratings are
    put into the profile's words."""

    read: Callable[[dict[str, Any], int, Reading], TrainingRow]
    ranged: bool = True
    rewords: bool = False


FORMATS = {
    QSIT: Format(published_rating),
    Q_INSTRUCT: Format(conversation, ranged=False),
    LLAVA: Format(conversation, ranged=False),
    QALIGN: Format(qalign, rewords=True),
    DEQA: Format(deqa, rewords=True),
    SWIFT: Format(swift, ranged=False, rewords=True),
    ROWS: Format(lambda record, position, reading: from_record(record)),
}
ROW_SCALES = {**SCALES, DEQA_SCALE.name: DEQA_SCALE}
"""What the ratings of a row are on, by its source."""


def row_of(record: dict[str, Any], position: int, source: str) -> TrainingRow:
    """A record of a file that is trained on as it is: one of our rows, or LLaVA's form. Raises RowError.

    ``source``: of rows that name none.
    """
    name = _format_of(record)
    if FORMATS[name].rewords:
        raise RowError(f"it has the form of {name}: make rows of the file first, by qsit train convert {name}")
    return FORMATS[name].read(record, position, Reading(source))


def _format_of(record: dict[str, Any]) -> str:
    """By the keys of the record, and by its id."""
    if "messages" in record:
        return ROWS if "task" in record else SWIFT
    if "query" in record:
        return SWIFT
    if "gt_score_norm" in record:
        return DEQA
    if "<|image|>" in str(record.get("conversations")):
        return QALIGN
    return QSIT if "->" in str(record.get("id")) else LLAVA
