"""Whether the range that is cut into levels is that of the ratings: a wrong one makes every image "bad", silently."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from qsit_plugin.protocol import LEVELS

from ..levels import LevelScale

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
    """What says that a range is not that of these ratings, with their histogram and the cure; None where it fits.

    ``ratings``: all that the file holds for this scale, those outside the range, too; finite. Of fewer than five
    nothing is said but that they are outside, and levels are only called empty from 25 ratings on.
    """
    if not ratings:
        return None
    counts = Counter(scale.level(mos) for mos in ratings)
    signs = list(_signs(scale, ratings, counts))
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
