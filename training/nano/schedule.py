"""The learning rate of the stages that may be given more time while they are under way."""

from __future__ import annotations

DECAY = 0.3
"""Share of the steps, the last ones, over which the rate falls to zero."""


def rate_at(step: int, steps: int) -> float:
    """Share of the learning rate: a linear rise over 100 steps, constant, and a linear fall at the end. A run that is
    stopped before the fall goes on with more or fewer steps as if it had been started with them."""
    return min(1.0, (step + 1) / 100, (steps - step) / (DECAY * steps))
