"""From a mean opinion score to one of five levels, to five probabilities, and back to a number. Needs numpy only.

The ranges of ``koniq`` and ``spaq`` are those of the published training data of Q-SiT (and of Q-Align before it): with
them all 15,943 of its rows get the level that stands in their text. They are not those of the rating scales: KonIQ's
ends are the 11th lowest and the 10th highest of its 10,073 ratings, SPAQ's are 0 and 94. The other ranges are.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from qsit_plugin.protocol import LEVELS

_RISING = tuple(reversed(LEVELS))
NARROW = 1 / 3
"""A standard deviation below this share of a step is ignored: a normal distribution as narrow as this falls to the two
levels beside the MOS, and the mean alone says how they share it."""
WIDE = 1.4
"""A standard deviation above so many steps counts as this: wider, half of the distribution lies beyond the two ends of
the range, and the likeliest level may be an outer one, two from the word. The widest of KonIQ's 10,073 is 1.40 steps,
of KADID-10k's 1.26, of AGIQA-3K's 1.16."""


@dataclass(frozen=True)
class LevelScale:
    """How the ratings of one dataset are cut into levels.

    ``low``, ``high``: the range of ratings that is cut into five equal parts, on the dataset's own scale.
    ``high_included``: whether a rating of exactly ``high`` belongs to the last part; the published data leaves it out.
    ``lower_is_better``: for DMOS. ``possible``: the ends of the rating scale itself; a rating outside them is an error
    of the file, one that is merely outside ``low`` to ``high`` is dropped by the rule. By default the range itself.
    """

    name: str
    low: float
    high: float
    high_included: bool = True
    lower_is_better: bool = False
    possible: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ValueError(
                f"the range of a level scale must be two numbers, low before high; got {self.low, self.high}"
            )

    @classmethod
    def named(cls, name: str) -> LevelScale:
        """The scale of a published dataset: koniq, spaq, kadid10k, livec, biq2021, agiqa3k, tid2013, csiq or live."""
        if name == CUSTOM:
            raise ValueError(f"a {CUSTOM} scale needs its range: LevelScale.{CUSTOM}(low, high)")
        if name not in SCALES:
            raise ValueError(
                f"no level scale {name!r}: give one of {', '.join(SCALES)}, or a range of your own with "
                f"LevelScale.{CUSTOM}(low, high)"
            )
        return SCALES[name]

    @classmethod
    def custom(cls, low: float, high: float, *, lower_is_better: bool = False) -> LevelScale:
        """The scale of a dataset that has no name here; both ends belong to it."""
        return cls(CUSTOM, float(low), float(high), lower_is_better=lower_is_better)

    @property
    def edges(self) -> tuple[float, ...]:
        """The six ends of the five parts, rising."""
        # linspace and nothing that is equal on paper: SPAQ's third edge is 56.400000000000006, and the photos rated
        # 56.4 are "fair" in the published data only for that
        return tuple(np.linspace(self.low, self.high, len(LEVELS) + 1).tolist())

    def is_possible(self, mos: float) -> bool:
        """Whether the rating scale allows this number at all."""
        low, high = self.possible or (self.low, self.high)
        return low <= mos <= high

    def level(self, mos: float) -> str | None:
        """The level of a rating, or None where it is outside the range and the row is to be dropped.

        Each part is closed on the left: ``edges[k] <= mos < edges[k + 1]``. Raises ValueError for NaN and infinity.
        """
        _finite(mos)
        if not self.low <= mos <= self.high or (mos == self.high and not self.high_included):
            return None
        part = min(bisect_right(self.edges, mos) - 1, len(LEVELS) - 1)
        return (LEVELS if self.lower_is_better else _RISING)[part]

    def soft(self, mos: float, sd: float | None = None, votes: Sequence[float] | None = None) -> tuple[float, ...]:
        """Probabilities of the five levels, excellent to bad, whose mean is the rating.

        The levels stand at five equal steps from one end of the range to the other, as in Q-SiT's score (1, .75, .5,
        .25, 0), so that ``number`` turns the probabilities back into the rating, and the score that a model learns from
        them is the rating's place on its range.

        Args:
            mos: on the dataset's scale. One outside the range counts as the nearer end.
            sd: standard deviation of the ratings, in units of ``mos``. Each level then gets the part of a normal
                distribution that is nearest to it, as in DeQA-Score (arXiv 2501.11561); both tails go to the outer
                levels. Those tails pull the mean inwards, by .07 of a step root mean square on KADID-10k and up to .3
                on one image, so the distribution is moved outwards until the mean of the levels is the MOS. (DeQA-Score
                corrects its mean by ``alpha * p + beta``; near the ends, where the tails are, its ``beta`` is
                negative and so are some probabilities.) Without a deviation, or with one below a third of a step, the
                two neighbours share the MOS linearly, which is the limit of the same rule; above 1.4 steps it counts
                as 1.4.
            votes: how often each level was chosen, as counts or shares, excellent to bad. They are taken as they are,
                and lie on a ruler of their own: on KonIQ their mean is .541 where the rating stands at .662 of its
                range.

        Raises ValueError for a rating that the scale does not allow, a negative deviation, malformed votes.
        """
        _finite(mos)
        if not self.is_possible(mos):
            low, high = self.possible or (self.low, self.high)
            raise ValueError(f"{mos} is no rating on the scale {self.name}: it goes from {low:g} to {high:g}")
        if votes is not None:
            return _shares(votes)
        if sd is not None and not 0 <= sd < math.inf:
            raise ValueError(f"a standard deviation must be a number from 0 up, got {sd}")
        place = self._place(mos)
        spread = 0.0 if sd is None else sd / self._step
        return _neighbours(place) if spread < NARROW else _spread(place, min(spread, WIDE))

    def number(self, probabilities: Iterable[float]) -> float:
        """The rating that five probabilities (excellent to bad) amount to: the mean of the levels' places.

        Exact for ``soft`` from a rating inside the range, with or without a deviation. A hard level alone is off by
        0.39 (KonIQ) and 0.37 (SPAQ) of a step, root mean square.
        """
        shares = _shares(tuple(probabilities))
        steps = sum(share * step for step, share in enumerate(reversed(shares)))
        return self.high - steps * self._step if self.lower_is_better else self.low + steps * self._step

    def score(self, mos: float) -> float:
        """Where a rating stands on its range, as Q-SiT's score has it: 0 at the bad end, 1 at the excellent one.

        A rating outside the range counts as the nearer end.
        """
        _finite(mos)
        return self._place(mos) / (len(LEVELS) - 1)

    @property
    def _step(self) -> float:
        return (self.high - self.low) / (len(LEVELS) - 1)

    def _place(self, mos: float) -> float:
        """Steps above bad, in [0, 4]."""
        above = self.high - mos if self.lower_is_better else mos - self.low
        return min(max(above / self._step, 0.0), len(LEVELS) - 1.0)


CUSTOM = "custom"
SCALES = {
    scale.name: scale
    for scale in (
        LevelScale("koniq", 6.68487394958, 85.35625, high_included=False, possible=(0, 100)),
        LevelScale("spaq", 0, 94, high_included=False, possible=(0, 100)),
        LevelScale("kadid10k", 1, 5),
        LevelScale("livec", 0, 100),
        LevelScale("biq2021", 0, 1),
        LevelScale("agiqa3k", 0, 5),
        LevelScale("tid2013", 0, 9),
        LevelScale("csiq", 0, 1, lower_is_better=True),
        LevelScale("live", 0, 100, lower_is_better=True),
    )
}
"""By the names that datasets have everywhere in this package."""


def _finite(mos: float) -> None:
    if not math.isfinite(mos):
        raise ValueError(f"a MOS must be a finite number, got {mos}")


def _shares(votes: Sequence[float]) -> tuple[float, ...]:
    if len(votes) != len(LEVELS) or not all(0 <= vote < math.inf for vote in votes) or sum(votes) <= 0:
        raise ValueError(f"there must be five shares or counts, excellent to bad, none below 0; got {list(votes)}")
    total = sum(votes)
    return tuple(vote / total for vote in votes)


def _neighbours(place: float) -> tuple[float, ...]:
    return tuple(max(0.0, 1.0 - abs(place - step)) for step in range(len(LEVELS) - 1, -1, -1))


BORDERS = (0.5, 1.5, 2.5, 3.5)
"""Halfway between the levels' places, in steps above bad."""


def _above(center: float, spread: float) -> list[float]:
    """How much of a normal distribution lies above each border."""
    width = spread * math.sqrt(2)
    return [0.5 * math.erfc((border - center) / width) for border in BORDERS]


def _spread(place: float, spread: float) -> tuple[float, ...]:
    """The masses of the normal distribution of this width whose mean over the levels is ``place``, by bisection.

    That mean is the sum of what lies above the borders, and rises with the center. Ten spreads beyond an end the other
    levels have less than 1e-23.
    """
    low, high = BORDERS[0] - 10 * spread, BORDERS[-1] + 10 * spread
    for _ in range(60):  # from at most 31 steps down to the last bit
        center = (low + high) / 2
        if sum(_above(center, spread)) < place:
            low = center
        else:
            high = center
    above = [1.0, *_above((low + high) / 2, spread), 0.0]
    return tuple(a - b for a, b in reversed(list(zip(above[:-1], above[1:], strict=True))))
