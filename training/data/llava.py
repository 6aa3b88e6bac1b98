"""LLaVA's JSON: conversations about images (Q-Instruct, LLaVA-Instruct-150K), and the ratings that Q-SiT published."""

from __future__ import annotations

from typing import Any

from .conversion import rounded
from .reading import Reading, mos_in_id, one_image
from .rows import TrainingRow, messages_of


def conversation(record: dict[str, Any], position: int, reading: Reading) -> TrainingRow:
    """A conversation as it is; ``image`` may be a path, a list of paths, or missing. Raises RowError."""
    return TrainingRow(
        id=str(record.get("id") or f"{reading.source}-{position}"),
        image=reading.image(record.get("image")),
        task="interpret",
        messages=messages_of(record.get("conversations")),
        source=reading.source,
    )


def published_rating(record: dict[str, Any], position: int, reading: Reading) -> TrainingRow:
    """A row of Q-SiT's JSON: its id is ``photo.jpg->63.6``, its texts are kept as they are. Raises RowError."""
    image, identity = one_image(record, reading), str(record.get("id"))
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
