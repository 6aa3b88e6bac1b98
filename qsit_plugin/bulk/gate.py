"""A gate: which images of a folder pass, by a threshold or as a share of the folder, and where they go."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from qsit_plugin.protocol import LEVELS

from .file_steps import Step, file_step, text_step
from .sidecar import sidecar, sidecar_path
from .stored import Stored

DRAWS = 10_000
"""Bootstrap samples of a threshold's interval."""


@dataclass(frozen=True)
class Threshold:
    """The score from which on images pass, and, where it was taken from the folder, its interval of 95 %."""

    value: float
    interval: tuple[float, float] | None = None


def keep_share(scores: Sequence[float] | np.ndarray, share: float, *, seed: int = 0) -> Threshold:
    """The threshold that the best ``share`` (in (0, 1]) of these scores reach, with its bootstrap interval.

    At least one passes; ties at the threshold all do. The interval says how far the threshold would move with other
    images of the same kind: the middle 95 % of the thresholds of samples of equal size, drawn with replacement. Such a
    sample's m-th smallest score is the one of rank ceil(n U) here, with U the m-th smallest of n uniform numbers, which
    has the distribution Beta(m, n - m + 1); so no sample has to be drawn whole.

    Raises ValueError for no score, and for a share outside (0, 1].
    """
    ordered = np.sort(np.asarray(scores, dtype=float))
    count = len(ordered)
    if not count or not 0.0 < share <= 1.0:
        raise ValueError(f"a share of {share} of {count} scores: it must lie in (0, 1], and there must be a score")
    rank = count - math.ceil(round(share * count, 9)) + 1  # from the smallest; rounded, as .07 * 100 is above 7
    places = np.random.default_rng(seed).beta(rank, count - rank + 1, DRAWS)
    drawn = ordered[np.clip(np.ceil(places * count).astype(int) - 1, 0, count - 1)]
    low, high = np.quantile(drawn, [0.025, 0.975], method="nearest")
    return Threshold(float(ordered[rank - 1]), (float(low), float(high)))


@dataclass(frozen=True)
class Gate:
    """What passes (a score of at least ``threshold`` and a level of at least ``level``), and what is done with it.

    ``do``: ``"move"``, ``"copy"`` or ``"link"`` into ``passed`` and ``failed``, folders in which the images keep their
    place below ``folder``; one of them, or both, may be None, and then those stay. ``sidecars``: an XMP sidecar beside
    each image where there is none, with the failed ones as rejected.
    """

    folder: str
    threshold: float
    level: str = LEVELS[-1]
    do: str = "copy"
    passed: str | None = None
    failed: str | None = None
    sidecars: bool = False

    def passes(self, row: dict[str, Any]) -> bool:
        """Whether an image with this row, which has a score, passes."""
        return row["score"] >= self.threshold and LEVELS.index(row["level"]) <= LEVELS.index(self.level)

    def within(self) -> list[str]:
        """The folders that are touched."""
        return [self.folder, *(place for place in (self.passed, self.failed) if place is not None)]

    def steps(self, images: Iterable[Stored]) -> Iterator[Step]:
        """What is to be done with images of the folder, for ``manifest.plan``. An image's own sidecar goes with it.

        Raises OSError for a file that is gone by now.
        """
        for path, sha256, row in images:
            passes = self.passes(row)
            place = self.passed if passes else self.failed
            beside, target = sidecar_path(path), path
            if place is not None:
                target = os.path.join(place, os.path.relpath(path, self.folder))
                yield file_step(self.do, path, target, "" if sha256 is None else sha256.hex())
            if os.path.lexists(beside):
                if place is not None:
                    yield file_step(self.do, beside, sidecar_path(target))
            elif self.sidecars:
                yield text_step(sidecar_path(target), sidecar(row, rejected=not passes))


def below(path: str, folders: Iterable[str]) -> bool:
    """Whether a path lies in one of these folders; all absolute."""
    return any(path == folder or path.startswith(os.path.join(folder, "")) for folder in folders)
