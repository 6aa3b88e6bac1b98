"""What soft labels keep of the ratings they were made from: their mean, their error, and how far from the words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from qsit_plugin.protocol import LEVELS

from ..levels import SCALES, LevelScale
from .rows import TrainingRow

MEAN_WITHIN = 0.01
ERROR_WITHIN = 0.06


@dataclass(frozen=True)
class LabelError:
    """Of ``rows`` ratings on one scale, rated images with soft labels.

    ``mos``, ``labels``: mean of the ratings, and of the numbers that their soft labels amount to, as shares of the
    range (0 bad end, 1 excellent end), the ruler of Q-SiT's score. ``error``: root mean square of the difference, in
    steps (quarters of the range). ``same``: share of the rows whose likeliest soft level is the level of the word.
    ``apart``: the most levels that the two are apart. ``turned``: the error of the labels read from bad to excellent.
    ``on_range``: whether the labels lie on the ruler of the ratings: means within .01 of the range and an error of at
    most .06 of a step.

    Words cut the range into fifths while soft levels stand at quarters, so ``same`` is about .8 for good labels, and
    ``apart`` 1.
    """

    rows: int
    mos: float
    labels: float
    error: float
    same: float
    apart: int
    turned: float

    @property
    def on_range(self) -> bool:
        return abs(self.labels - self.mos) <= MEAN_WITHIN and self.error <= ERROR_WITHIN

    def __str__(self) -> str:
        return (
            f"mean {self.labels:.3f}, of the ratings {self.mos:.3f} of the range; error {self.error:.3f} of a step; "
            f"the likeliest level is the word in {self.same:.1%} of {self.rows:,} rows, {self.apart} apart at most"
        )


def off_range_text(scale: LevelScale, error: LabelError) -> str:
    """What is said of soft labels that are not ``on_range``."""
    turned = "they fit better as bad to excellent, so turn level_probs to excellent to bad"
    cure = turned if error.turned < error.error else "convert the annotation file again"
    return (
        f"the soft labels are not on the range of the ratings ({scale.name}): {error}. A model trained on them learns "
        f"other scores than the level words say; {cure}"
    )


def off_range_texts(rows: Sequence[TrainingRow]) -> list[str]:
    """A text for each published dataset among the rows whose soft labels are not on the range of its ratings.

    Shares of votes, which KonIQ's rows once held by default, are not. Rows of other sources do not say their range.
    """
    texts = []
    for name in dict.fromkeys(row.source for row in rows if row.source in SCALES):
        error = label_error(SCALES[name], [row for row in rows if row.source == name])
        if error is not None and not error.on_range:
            texts.append(off_range_text(SCALES[name], error))
    return texts


def label_error(scale: LevelScale, rows: Sequence[TrainingRow]) -> LabelError | None:
    """The figures of the rows that have a rating inside the range and soft labels; None where there is none."""
    found = []
    for row in rows:
        level = None if row.mos is None else scale.level(row.mos)
        if row.mos is not None and row.level_probs is not None and level is not None:
            likeliest = row.level_probs.index(max(row.level_probs))
            soft = scale.score(scale.number(row.level_probs))
            found.append((scale.score(row.mos), soft, abs(likeliest - LEVELS.index(level))))
    if not found:
        return None
    ratings, labels, apart = zip(*found, strict=True)
    count = len(found)
    return LabelError(
        rows=count,
        mos=sum(ratings) / count,
        labels=sum(labels) / count,
        error=_steps(ratings, labels),
        same=apart.count(0) / count,
        apart=max(apart),
        turned=_steps(ratings, [1 - soft for soft in labels]),
    )


def _steps(ratings: Sequence[float], labels: Sequence[float]) -> float:
    """Root mean square of the difference, in steps."""
    return (len(LEVELS) - 1) * math.dist(ratings, labels) / math.sqrt(len(ratings))
