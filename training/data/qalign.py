"""Q-Align's JSON (arXiv 2312.17090): ratings in LLaVA's form with ten wordings of the question and ``<|image|>``.

``{"id": "photo.jpg->63.6", "image": "koniq/photo.jpg", "conversations": [...]}``, in its fine-tuning splits also
``gt_score``, as text; its test splits are ``{"img_path", "gt_score"}`` alone. The levels are parts of the range of each
dataset's training ratings, which for KonIQ and SPAQ are our scales.
"""

from __future__ import annotations

from typing import Any

from .reading import Reading, mos_in_id, number, one_image, rating
from .rows import TrainingRow


def read(record: dict[str, Any], position: int, reading: Reading) -> TrainingRow:
    """A rating; without one in ``gt_score`` or the id, the level in the answer alone. Raises RowError."""
    mos = number(record, "gt_score")
    if mos is None and "->" in str(record.get("id")):
        mos = mos_in_id(str(record["id"]))
    scale = None if mos is None else reading.scale_of(one_image(record, reading))
    return rating(record, position, reading, mos=mos, scale=scale)
