"""What a loop of tries carries from one to the next, and when it ends. Knows numbers only."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import Any

SEEDS = 2**64
"""Seeds are 0 to this, without it."""
MOST_TRIES = 500
"""ComfyUI's caches nest with each expansion, and walk down by recursion: at 1000 Python ends it, in every later run."""


@dataclass(frozen=True)
class Loop:
    """What Start gives End: the seed of this try, and when and in which run it was given."""

    seed: int
    prompt: str
    began: float


@dataclass(frozen=True)
class Try:
    """One try: what came out of the nodes between. Its score is the mean over its images."""

    number: int
    seed: int
    score: float
    carried: dict[str, Any] = field(repr=False)


@dataclass(frozen=True)
class Tries:
    """All tries so far; of those that are not the best one only number, seed and score are kept."""

    root: str
    """Id of the End node that the workflow has."""
    began: float
    lines: tuple[str, ...] = ()
    scores: tuple[float, ...] = ()
    best: Try | None = None

    @property
    def prefix(self) -> str:
        """What the ids of the nodes of the latest try begin with; those of the first have nothing before them."""
        return f"{self.root}.{len(self.scores)}." if len(self.scores) > 1 else ""

    def with_try(self, seed: int, score: float, carried: dict[str, Any]) -> Tries:
        number = len(self.scores) + 1
        best = self.best if self.best and self.best.score >= score else Try(number, seed, score, carried)
        line = f"try {number}, seed {seed}: {score:.3f}"
        return replace(self, lines=(*self.lines, line), scores=(*self.scores, score), best=best)


def spent(now: Tries, max_tries: int, max_seconds: float) -> str | None:
    """What has been used up, in words; None where there may be one more try."""
    if len(now.scores) >= min(max_tries, MOST_TRIES):
        return f"{len(now.scores)} tries"
    seconds = time.monotonic() - now.began
    return f"{seconds:.0f} seconds" if max_seconds and seconds >= max_seconds else None
