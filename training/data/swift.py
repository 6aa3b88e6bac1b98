"""ms-swift's JSON and JSONL: ``messages`` with ``<image>`` in the text and a list ``images``, or query and response.

``{"messages": [{"role": "user", "content": "<image>Why?"}, …], "images": ["a.jpg"]}``; the content may also be a list
of ``{"type": "text", "text"}`` and ``{"type": "image"}``, as TRL and transformers have it. The older form is
``{"query", "response", "history": [[query, response], …], "images"}``.
"""

from __future__ import annotations

from typing import Any

from .conversion import level_said, score_messages
from .reading import Reading
from .rows import IMAGE_MARK, ROLES, RowError, TrainingRow, messages_of

SYSTEM = "system prompt (the chat template of the checkpoint has its own)"
SPEAKERS = {role: name for name, role in ROLES.items()}


def read(record: dict[str, Any], position: int, reading: Reading) -> TrainingRow:
    """A conversation; one answer that says a level in the profile's words is a rating, asked in the profile's words.

    Images without a mark in any text stand before the first question, as in ms-swift. Raises RowError.
    """
    image = reading.image(record.get("images", record.get("image")))
    turns = _turns(record, reading)
    if image is not None and turns and not any(IMAGE_MARK in turn["value"] for turn in turns):
        count = 1 if isinstance(image, str) else len(image)
        turns[0]["value"] = IMAGE_MARK * count + turns[0]["value"]
    messages = messages_of(turns)
    level = level_said(turns[1]["value"], reading.profile) if len(turns) == 2 and isinstance(image, str) else None
    return TrainingRow(
        id=str(record.get("id") or f"{reading.source}-{position}"),
        image=image,
        task="interpret" if level is None else "score",
        messages=messages if level is None else score_messages(level, reading.profile),
        source=str(record.get("source") or reading.source),
    )


def _turns(record: dict[str, Any], reading: Reading) -> list[dict[str, str]]:
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
    return [{"from": SPEAKERS.get(turn.get("role"), turn.get("role")), "value": _text(turn.get("content"))}
            for turn in kept]  # fmt: skip


def _text(content: Any) -> Any:
    if not isinstance(content, list) or not all(isinstance(part, dict) for part in content):
        return content
    return "\n".join(IMAGE_MARK if part.get("type") == "image" else str(part.get("text")) for part in content)
