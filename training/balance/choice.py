"""Which mixture a search writes down: the middle of what is tied with the best, or the published one.

Not the best itself: where the objective hardly changes, noise decides where it is highest, and that may be at an end,
which leaves a task out. Where no mixture can be distinguished from another, nothing speaks against what Q-SiT was
trained on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .analysis import Fit, second_line
from .design import Design, Point, on_line
from .trials import Trial

MIDDLE, PUBLISHED, PUBLISHED_SCORING = "middle of what is tied", "published", "published share of scoring"


@dataclass(frozen=True)
class Choice:
    """``point``: the mixture. ``by``: one of the three above. ``candidate``: the fit's nearest to it."""

    point: Point
    by: str
    candidate: int


def choose(design: Design, trials: Sequence[Trial], best: Fit, first: Fit | None) -> Choice:
    """
    - Not flat: of all candidates that are tied with the best, the one nearest to their mean.
    - Flat: the published mixture. Where the first stage was not flat, the published share of scoring at the share of
      quality that the first stage has found.
    - Flat, but with the published mixture outside of what is tied, as with a grid that does not reach it: the middle.
    """
    published = design.baselines()["published"]
    on_the_line = published if first is None else on_line(published[0], second_line(design, trials, first))
    candidate = best.nearest(on_the_line)
    if not best.flat or not best.tied[candidate]:
        middle = best.candidates[best.middle]
        return Choice(tuple(float(share) for share in middle), MIDDLE, best.middle)
    if first is None or first.flat:
        return Choice(published, PUBLISHED, candidate)
    return Choice(on_the_line, PUBLISHED_SCORING, candidate)
