"""DeQA-Score's JSON (arXiv 2501.11561): ratings with their deviation and the soft labels that were made from them.

``{"id": "photo.jpg->63.6", "image": "KONIQ/images/photo.jpg", "gt_score", "gt_score_norm", "std", "std_norm",
"level_probs", "level_probs_org", "conversations"}``. ``_norm`` is the range of the dataset's ratings brought to 1 to 5,
which is also what words and ``level_probs`` (excellent to bad) are cut from. ``level_probs_org`` do not sum to 1.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ..levels import LevelScale
from .conversion import level_said, rounded, score_messages
from .reading import Reading, number, rating
from .rows import RowError, TrainingRow

SCALE = LevelScale("deqa", 1, 5)
"""What ``gt_score_norm`` is on, in the files of all datasets."""
EDGE = 1e-6
"""DeQA closes the parts of the range on the right, we on the left: a rating on an edge has the word below it."""
SUM_WITHIN = 0.1
"""DeQA sets negative shares to 0 and accepts a mean that is .1 off then: the shares may sum to so much more than 1."""


def read(record: dict[str, Any], position: int, reading: Reading) -> TrainingRow:
    """A rating on ``SCALE``, or where the user gives a scale, as the dataset published it. Raises RowError."""
    scale, ending = (SCALE, "_norm") if reading.scale is None else (reading.scale, "")
    mos = number(record, f"gt_score{ending}")
    if mos is None:
        raise RowError(f"it has no gt_score{ending}" + ("; with --range, gt_score is taken" if ending else ""))
    row = rating(
        record,
        position,
        reading,
        mos=mos,
        scale=scale,
        sd=number(record, f"std{ending}"),
        level_probs=_shares(record.get("level_probs")),
    )
    level = scale.level(mos)
    if level is not None and level_said(row.answer, reading.profile) == scale.level(max(mos - EDGE, scale.low)):
        return replace(row, messages=score_messages(level, reading.profile))
    return row


def _shares(values: Any) -> Any:
    """Brought to the sum 1; what is no list of numbers near it is left for ``TrainingRow`` to refuse."""
    if not isinstance(values, list) or not all(isinstance(value, int | float) for value in values):
        return values
    total = sum(values)
    return rounded([value / total for value in values]) if abs(total - 1) <= SUM_WITHIN else values
