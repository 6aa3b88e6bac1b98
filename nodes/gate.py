"""The decision of Q-SiT Gate: which images of a batch are good enough. Knows numbers only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

MODES = ("per image", "all", "any", "mean")


@dataclass(frozen=True)
class Verdict:
    """Indices of the images that passed and that were rejected, in the batch's order."""

    passed: list[int]
    rejected: list[int]

    @property
    def is_pass(self) -> bool:
        """Whether anything passed. In the modes that decide once for the batch: whether the batch passed."""
        return bool(self.passed)


def judge(scores: Sequence[float], threshold: float, mode: str) -> Verdict:
    """Who passes at ``score >= threshold``.

    ``"per image"`` judges each image alone. The other modes pass or reject the whole batch: ``"all"`` when every image
    is good enough, ``"any"`` when one is, ``"mean"`` when the mean score is.

    Raises ValueError for an unknown mode.
    """
    everyone = list(range(len(scores)))
    good = [i for i in everyone if scores[i] >= threshold]
    if mode == "per image":
        return Verdict(good, [i for i in everyone if i not in set(good)])
    if mode == "all":
        whole = len(good) == len(scores)
    elif mode == "any":
        whole = bool(good)
    elif mode == "mean":
        whole = fmean(scores) >= threshold
    else:
        raise ValueError(f"mode must be one of {', '.join(MODES)}, got {mode!r}")
    return Verdict(everyone, []) if whole else Verdict([], everyone)


def summary(verdict: Verdict, threshold: float, mode: str) -> str:
    """One line: how many passed, and which images (numbered from 1) did not."""
    count = len(verdict.passed) + len(verdict.rejected)
    text = f"{len(verdict.passed)} of {count} passed at {threshold:g} ({mode})"
    return text + (f"; rejected: {numbers(verdict.rejected)}" if verdict.rejected else "")


def numbers(indices: Sequence[int]) -> str:
    """Indices as people count, from 1: ``"1, 3"``."""
    return ", ".join(str(i + 1) for i in indices)
