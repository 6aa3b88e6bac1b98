"""Which mixtures are tried. A mixture is a point: the shares of the groups, which sum to 1.

The groups are scoring (D1 in the paper), quality (D2: questions about quality) and general (D3: questions about
anything); without general data there are two. As Q-SiT's authors do, a search first looks for D2 : D3, then for D1 to
both (the paper's figure 3, "coarse stage"; its grids and its regression are not published, these are ours).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

GROUPS = ("scoring", "quality", "general")
GRID = (0.0, 0.1, 0.22, 0.35, 0.5, 0.65, 0.8, 1.0)
"""Scoring shares. The ends train one task alone: they show whether the tasks help or disturb each other."""
QUALITY_GRID = (0.0, 0.25, 0.5, 0.75, 1.0)
FIRST_SCORING = 0.22
PUBLISHED = {2: (0.22, 0.78), 3: (0.22, 0.61, 0.17)}
"""The published mixture: 15,943 ratings, about 44,100 rows of Q-Instruct and 12,600 of LLaVA-Instruct-150K."""

Point = tuple[float, ...]


class Planned(NamedTuple):
    """One trial: its mixture and its seed."""

    point: Point
    seed: int


@dataclass(frozen=True)
class Design:
    """Trials of a search.

    ``groups``: 2 or 3. ``seeds``: every mixture is tried with the first, central ones and baselines with all, which
    gives the noise. ``grid``: scoring shares. ``quality_grid``: shares of quality within the interpreting data, tried
    at the scoring share ``first_scoring``.
    """

    groups: int
    seeds: tuple[int, ...]
    grid: tuple[float, ...] = GRID
    quality_grid: tuple[float, ...] = QUALITY_GRID
    first_scoring: float = FIRST_SCORING

    @property
    def staged(self) -> bool:
        """Whether a first stage looks for the share of quality within the interpreting data."""
        return self.groups == 3

    @property
    def baselines(self) -> dict[str, Point]:
        """The mixtures that every search has."""
        return {"equal": _rounded([1 / self.groups] * self.groups), "published": PUBLISHED[self.groups]}

    def first(self) -> list[Planned]:
        """Baselines, and what can be tried before anything is known."""
        if self.staged:
            return self._with_seeds([mixture(self.first_scoring, share) for share in self.quality_grid], central=1)
        return self._with_seeds([mixture(share) for share in self.grid], central=3)

    def second(self, quality: float) -> list[Planned]:
        """The second stage of a search of three groups, at the first's share of quality within interpreting."""
        planned = self._with_seeds([mixture(share, quality) for share in self.grid], central=3)
        return [one for one in planned if one not in self.first()]

    def _with_seeds(self, points: Sequence[Point], central: int) -> list[Planned]:
        inside = list(points[1:-1])
        begin = max(0, (len(inside) - central) // 2)
        often = [*self.baselines.values(), *inside[begin : begin + central]]
        # seed after seed: a search that is stopped early has all points once before it has any twice
        planned = [Planned(point, seed) for seed in self.seeds for point in often]
        alone = [Planned(point, self.seeds[0]) for point in points]
        return list(dict.fromkeys(planned[: len(often)] + alone + planned[len(often) :]))


def mixture(scoring: float, quality: float | None = None) -> Point:
    """The mixture with this scoring share; of the rest, ``quality`` is quality data, all with two groups."""
    if quality is None:
        return _rounded([scoring, 1 - scoring])
    return _rounded([scoring, (1 - scoring) * quality, (1 - scoring) * (1 - quality)])


def quality_share(point: Point) -> float:
    """Share of quality within the interpreting data of three groups; nan where there is none."""
    return point[1] / sum(point[1:]) if sum(point[1:]) > 0 else float("nan")


def _rounded(shares: Sequence[float]) -> Point:
    """To six digits, so that equal points are equal."""
    return tuple(round(share, 6) for share in shares)
