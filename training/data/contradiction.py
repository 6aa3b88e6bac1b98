"""Whether soft labels say what the level words of their own rows say, whatever the range of the ratings."""

from __future__ import annotations

from collections.abc import Sequence

from qsit_plugin.protocol import LEVELS, ScoreProfile

from ..levels import SCALES
from .conversion import level_said
from .rows import TrainingRow


def contradiction_text(rows: Sequence[TrainingRow], profile: ScoreProfile) -> str | None:
    """What says that soft labels contradict the level words of their own rows; needs no range, so holds for any source.

    Rated rows of published datasets are left to ``label_error``, which knows their range and tells more.

    A word stands for a fifth of the range, whose ends are at most .8 of a step from the level's place. A row whose
    labels are on average more than one step from its word contradicts it; more than one row in a hundred is no chance.
    """
    count = wrong = 0
    for row in rows:
        known = row.level_probs is None or (row.mos is not None and row.source in SCALES)
        said = None if known else level_said(row.answer.strip(), profile)
        if said is not None and row.level_probs is not None:
            mean = sum(share * place for place, share in enumerate(row.level_probs))
            count, wrong = count + 1, wrong + (abs(mean - LEVELS.index(said)) > 1.0)
    if wrong <= 0.01 * count:
        return None
    return (
        f"the soft labels of {wrong:,} of {count:,} rated rows are more than a level away from the word in their text: "
        "a model would learn other scores than the words say; are level_probs excellent to bad, and of these images?"
    )
