"""Checks of a file of rows: problems by kind, the range of the ratings, soft labels against ratings and level words."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from qsit_plugin.protocol import LEVELS, ScoreProfile

from ..levels import SCALES, LevelScale
from .rows import TrainingRow, level_in

# ---- what is wrong with rows ----

SHOWN = 5

MISSING_IMAGE = "missing image"
OUTSIDE_ROOT = "image outside the root"
BAD_ROW = "bad row"
OUT_OF_RANGE = "MOS out of range"
DISAGREEMENT = "text and level disagree"


@dataclass
class Problems:
    """``counts`` by kind, and ``examples``: the first five of each."""

    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def add(self, kind: str, *messages: str) -> None:
        for message in messages:
            self.counts[kind] += 1
            self.examples.setdefault(kind, [])
            if self.counts[kind] <= SHOWN:
                self.examples[kind].append(message)

    def __bool__(self) -> bool:
        return bool(self.counts)

    def total(self) -> int:
        return self.counts.total()

    def lines(self) -> Iterator[str]:
        """One line a kind, then its examples, indented."""
        for kind, count in self.counts.items():
            yield f"{kind}: {count:,}" + (f", the first {SHOWN}:" if count > SHOWN else ":")
            yield from (f"  {example}" for example in self.examples[kind])


# ---- the range of the ratings: a wrong one makes every image "bad" without an error ----

ENOUGH = 5
"""Fewer ratings say nothing about the range that they were given on."""
ENOUGH_FOR_LEVELS = 25
"""Fewer ratings, five a level, may leave a level empty by chance."""
COVERED = 0.5
"""Ratings that go over less than this share of the range are far inside it. KonIQ's, SPAQ's and KADID-10k's go over
.98 to 1 of theirs, AGIQA-3K's over .90."""
RARE = 0.02
"""A level with less than this share of the ratings, a tenth of its equal part, is as good as empty. The rarest of the
published data is KonIQ's bad with 2.6 %; AGIQA-3K's excellent has 1.8 % on the range 0 to 5."""
OUTSIDE = 0.01
"""More ratings than this share outside the range are not its few outliers: of KonIQ's, 0.2 % are."""


def histogram(counts: Mapping[str, int]) -> str:
    """``"bad 183, poor 666, fair 1,393, good 2,798, excellent 2,006"``: how many images say each level."""
    return ", ".join(f"{level} {counts.get(level, 0):,}" for level in reversed(LEVELS))


def range_warning(scale: LevelScale, ratings: Sequence[float]) -> str | None:
    """The warning that a range is not that of these ratings, with their histogram and the cure; None where it fits.

    ``ratings``: all that the file holds for this scale, those outside the range, too; finite. Fewer than five are only
    checked for being outside, and levels are only called empty from 25 ratings on.
    """
    counts = Counter(scale.level(mos) for mos in ratings)
    signs = _signs(scale, ratings, counts)
    if not signs:
        return None
    low, high = min(ratings), max(ratings)
    outside = f", outside {counts[None]:,}" if counts[None] else ""
    words = histogram({level: counts[level] for level in LEVELS})
    return (
        f"the range {scale.low:g} to {scale.high:g} ({scale.name}) does not fit these {len(ratings):,} ratings, which "
        f"go from {low:g} to {high:g}: {' and '.join(signs)} ({words}{outside}). If it is not the range they are to be "
        "judged on, give the right one: --range LOW HIGH (in Python scale=LevelScale.custom(low, high))"
    )


def _signs(scale: LevelScale, ratings: Sequence[float], counts: Mapping[str | None, int]) -> list[str]:
    signs = []
    outside = counts.get(None, 0)
    if outside > OUTSIDE * len(ratings):
        signs.append(f"{outside / len(ratings):.1%} are outside")
    if len(ratings) < ENOUGH:
        return signs
    covered = (min(max(ratings), scale.high) - max(min(ratings), scale.low)) / (scale.high - scale.low)
    if covered < COVERED:
        signs.append(f"they go over {max(covered, 0):.0%} of the range")
    held = [level for level in LEVELS if counts.get(level, 0)]
    if len(held) == 1:
        signs.append(f"all say {held[0]}")
    elif len(ratings) >= ENOUGH_FOR_LEVELS:
        rare = [level for level in LEVELS if counts.get(level, 0) < RARE * len(ratings)]
        signs += [f"{' and '.join(rare)} {'has' if len(rare) == 1 else 'have'} almost none"] if rare else []
    return signs


# ---- soft labels against the ratings that they were made from ----

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


def off_range_text(scale: LevelScale, error: LabelError) -> str | None:
    """The warning about soft labels that are not ``on_range``; None about others."""
    if error.on_range:
        return None
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
        texts.append(None if error is None else off_range_text(SCALES[name], error))
    return [text for text in texts if text]


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


# ---- soft labels against the level words of their own rows, whatever the range ----


def contradiction_text(rows: Sequence[TrainingRow], profile: ScoreProfile) -> str | None:
    """The warning that soft labels contradict the level words of their own rows; None where they do not.

    Needs no range, so holds for any source. Rated rows of published datasets are left to ``off_range_texts``, which
    know their range.

    A word stands for a fifth of the range, whose ends are at most .8 of a step from the level's place. A row whose
    labels are on average more than one step from its word contradicts it; more than one row in a hundred is no chance.
    """
    count = wrong = 0
    for row in rows:
        if row.level_probs is None or (row.mos is not None and row.source in SCALES):
            continue
        if level := level_in(row.answer.strip(), profile):
            mean = sum(share * place for place, share in enumerate(row.level_probs))
            count, wrong = count + 1, wrong + (abs(mean - LEVELS.index(level)) > 1.0)
    if wrong <= 0.01 * count:
        return None
    return (
        f"the soft labels of {wrong:,} of {count:,} rated rows are more than a level away from the word in their text: "
        "a model would learn other scores than the words say; are level_probs excellent to bad, and of these images?"
    )
