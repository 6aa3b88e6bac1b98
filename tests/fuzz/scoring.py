"""Open a damaged folder as a user does, score one small image, and look at the number."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from .case import Fault
from .hostile import MARK


def scored(folder: Path, checkpoint: Path, **options: Any) -> str:
    """``options``: of ``qsit_plugin.load``. Raises what loading and scoring raise, and Fault for a wrong result."""
    import qsit_plugin

    try:
        score = qsit_plugin.load(checkpoint, device="cpu", **options).score(small_picture())
    finally:
        if (folder / MARK).exists():
            raise Fault("code of the checkpoint was run")
    check(score)
    return f"score {score.value:.4f}"


def prepare() -> None:
    """Import all that loading and scoring need."""
    import qsit_plugin

    qsit_plugin.load("qsit-nano", engine="torch", device="cpu").score(small_picture())


def check(score: Any) -> None:
    """Raises Fault unless every number of a score is what its documentation says."""
    fields = {"value": 1.0, "std": 0.5, "entropy": math.log(5), "level_mass": 1.0}
    for name, most in fields.items():
        number = getattr(score, name)
        if not (isinstance(number, float) and -1e-9 <= number <= most + 1e-9):  # false for NaN
            raise Fault(f"{name} is {number!r:.80}")
    total = sum(score.probabilities.values())
    if not abs(total - 1) < 1e-6:
        raise Fault(f"the probabilities add up to {total}")
    for name in score.scales:
        if not math.isfinite(score.on(name)):
            raise Fault(f"on scale {name!r:.80} the score is {score.on(name)}")


@cache
def small_picture() -> np.ndarray:
    """uint8 (48, 48, 3) of smooth colours and a little noise."""
    rows, columns = np.mgrid[0:48, 0:48] * 5
    noise = np.random.default_rng(0).integers(0, 16, (48, 48))
    return np.stack([rows + noise, columns + noise, (rows + columns) // 2 + noise], 2).clip(0, 255).astype(np.uint8)
