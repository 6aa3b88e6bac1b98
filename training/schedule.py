"""The learning-rate schedule: which share of its learning rate every parameter group has at a step."""

from __future__ import annotations

import math


def factor(schedule: str, step: int, total: int, warmup: float) -> float:
    """Share of the learning rate at a step, in [0, 1]; the formulas are those of transformers' schedules.

    Args:
        schedule: cosine or linear (both fall to 0 after the warm-up), or constant (1 throughout, without a warm-up).
        step: number of the steps that are done, from 0 to ``total - 1``.
        warmup: share of the steps over which the rate rises from 0.
    """
    if schedule == "constant":
        return 1.0
    rising = math.ceil(warmup * total)
    if step < rising:
        return step / max(1, rising)
    left = (total - step) / max(1, total - rising)
    if schedule == "linear":
        return max(0.0, left)
    progress = (step - rising) / max(1, total - rising)
    return max(0.0, 0.5 * (1.0 + math.cos(math.pi * progress)))
