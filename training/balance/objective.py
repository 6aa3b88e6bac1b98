"""The objective of a search: the harmonic mean of agreement with ratings and accuracy above chance.

Q-SiT's authors do not publish what they regress on; they report scoring as (SRCC + PLCC) / 2, and interpreting as
accuracy on LLVisionQA. Both are combined here, with the accuracy corrected for guessing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


def scoring_of(figures: dict[str, Any]) -> float:
    """(SRCC + PLCC) / 2, in [-1, 1]; 0 for a model whose scores are all equal, which has neither."""
    return (0.0 if figures["srcc"] is None else (figures["srcc"] + figures["plcc"]) / 2.0) + 0.0


def corrected(accuracy: Any, chance: float) -> Any:
    """Accuracy above chance: 0 for guessing, 1 for all right."""
    return (accuracy - chance) / (1.0 - chance)


def harmonic(scoring: Any, right: Any) -> np.ndarray:
    """Harmonic mean, elementwise; 0 where one of the two is not above 0."""
    both = np.maximum(scoring, 0.0), np.maximum(right, 0.0)
    total = both[0] + both[1]
    return np.where(total > 0, 2.0 * both[0] * both[1] / np.where(total > 0, total, 1.0), 0.0)


@dataclass(frozen=True)
class Objective:
    """``chance``: accuracy of guessing, in [0, 1); .379 on LLVisionQA."""

    chance: float

    def __call__(self, scoring: Any, accuracy: Any) -> np.ndarray:
        return harmonic(scoring, corrected(accuracy, self.chance))

    def extend(self, figures: np.ndarray) -> np.ndarray:
        """Scoring and accuracy, the first two columns of (..., 2 or more), with the objective as third: (..., 3)."""
        scoring, accuracy = figures[..., 0], figures[..., 1]
        return np.stack([scoring, accuracy, self(scoring, accuracy)], axis=-1)
