"""Which mixtures are tried. A mixture is a point: the shares of the groups, which sum to 1.

The groups are scoring (D1 in the paper), quality (D2: questions about quality) and general (D3: questions about
anything); without general data there are two. Q-SiT's authors first look for the ratio D2 : D3, then for that of D1 to
both (the paper's figure 3, "coarse stage"; its grids and its regression are not published, these are ours).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

GROUPS = ("scoring", "quality", "general")
MODES = ("paper", "joint")
GRID = (0.0, 0.1, 0.22, 0.35, 0.5, 0.65, 0.8, 1.0)
"""Scoring shares. The ends train one task alone: they show whether the tasks help or disturb each other."""
QUALITY_GRID = (0.0, 0.25, 0.5, 0.75, 1.0)
FIRST_SCORING = 0.22
PUBLISHED = {2: (0.22, 0.78), 3: (0.22, 0.61, 0.17)}
"""The published mixture: 15,943 ratings, about 44,100 rows of Q-Instruct and 12,600 of LLaVA-Instruct-150K."""

Point = tuple[float, ...]


@dataclass(frozen=True)
class Planned:
    """One trial: where, and with which seed."""

    point: Point
    seed: int


@dataclass(frozen=True)
class Design:
    """Trials of a search.

    ``groups``: 2 or 3. ``grid``: scoring shares. ``quality_grid``: shares of quality within the interpreting data, and
    ``first_scoring`` the scoring share at which they are tried. ``seeds``: every point has the first, central points
    and baselines have all, which gives the noise.
    """

    groups: int
    mode: str
    seeds: tuple[int, ...]
    grid: tuple[float, ...] = GRID
    quality_grid: tuple[float, ...] = QUALITY_GRID
    first_scoring: float = FIRST_SCORING

    @property
    def staged(self) -> bool:
        """Whether a first stage decides on which line the second goes."""
        return self.groups == 3 and self.mode == "paper"

    @property
    def planar(self) -> bool:
        """Whether the points fill a triangle; else they lie on a line."""
        return self.groups == 3 and self.mode == "joint"

    def baselines(self) -> dict[str, Point]:
        """The mixtures that every search has."""
        return {"equal": _rounded([1 / self.groups] * self.groups), "published": PUBLISHED[self.groups]}

    def first(self) -> list[Planned]:
        """Baselines, and what can be tried before anything is known."""
        if self.planar:
            points, central = simplex(), [simplex()[-1]]
        elif self.staged:
            points = [on_line(self.first_scoring, share) for share in self.quality_grid]
            central = _central(points, 1)
        else:
            points = [on_line(share) for share in self.grid]
            central = _central(points, 3)
        return self._with_seeds(points, central)

    def second(self, quality: float) -> list[Planned]:
        """The second stage of a staged search, at the first's share of quality within interpreting."""
        points = [on_line(share, quality) for share in self.grid]
        done = set(self.first())
        return [planned for planned in self._with_seeds(points, _central(points, 3)) if planned not in done]

    def _with_seeds(self, points: Sequence[Point], central: Iterable[Point]) -> list[Planned]:
        often = [*self.baselines().values(), *central]
        planned = [Planned(point, seed) for seed in self.seeds for point in often]
        # seed after seed: a search that is stopped early has all points once before it has any twice
        ordered = [one for one in planned if one.seed == self.seeds[0]]
        ordered += [Planned(point, self.seeds[0]) for point in points]
        ordered += [one for one in planned if one.seed != self.seeds[0]]
        return list(dict.fromkeys(ordered))


def on_line(scoring: float, quality: float | None = None) -> Point:
    """The point with this scoring share; of the rest, ``quality`` is quality data. Without ``quality``: two groups."""
    if quality is None:
        return _rounded([scoring, 1 - scoring])
    return _rounded([scoring, (1 - scoring) * quality, (1 - scoring) * (1 - quality)])


def simplex() -> list[Point]:
    """The augmented simplex-centroid design of three components: corners, middles of the sides, points half way from
    the centroid to a corner, the centroid last (Cornell, Experiments with Mixtures)."""
    corners: list[Point] = [(1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)]
    middles: list[Point] = [(0.5, 0.5, 0.0), (0.5, 0.0, 0.5), (0.0, 0.5, 0.5)]
    axial = [_rounded([(2 if i == corner else 0.5) / 3 for i in range(3)]) for corner in range(3)]
    return [*corners, *middles, *axial, _rounded([1 / 3] * 3)]


def lies_on(point: Point, quality: float) -> bool:
    """Whether a point of three groups is on the line of a second stage."""
    return all(abs(a - b) < 1e-4 for a, b in zip(point, on_line(point[0], quality), strict=True))


def quality_share(point: Point) -> float:
    """Share of quality within interpreting. nan where nothing is interpreting."""
    rest = sum(point[1:])
    return point[1] / rest if rest > 0 else float("nan")


def _central(points: Sequence[Point], count: int) -> list[Point]:
    """The points in the middle of a list, without its ends."""
    inside = list(points[1:-1]) or list(points)
    begin = max(0, (len(inside) - count) // 2)
    return inside[begin : begin + count]


def _rounded(shares: Iterable[float]) -> Point:
    """To six digits, so that equal points are equal."""
    return tuple(round(share, 6) for share in shares)
