"""The decision of Q-SiT First Good Enough: is another candidate needed, and which one is taken. Knows numbers only."""

from __future__ import annotations

from collections.abc import Sequence

NAMES = [f"candidate_{i}" for i in range(1, 9)]
IF_NONE = ("best", "stop silently", "error")


def next_wanted(scores: Sequence[float], waiting: Sequence[str], threshold: float) -> str | None:
    """The candidate to make next, or None once one is good enough or none is left.

    Args:
        scores: of the candidates that are there, in order.
        waiting: names of the connected candidates that are not made yet, in order.
    """
    if any(score >= threshold for score in scores):
        return None
    return waiting[0] if waiting else None


def chosen(scores: Sequence[float], threshold: float) -> tuple[int, bool]:
    """(index, passed): the first candidate that is good enough, else the best one, of equals the first."""
    for index, score in enumerate(scores):
        if score >= threshold:
            return index, True
    return max(range(len(scores)), key=lambda i: (scores[i], -i)), False
