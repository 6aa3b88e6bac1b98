"""What is best: one number from how well a model scores and how well it interprets.

Q-SiT's authors do not say what they regress on; they report scoring as the mean of SRCC and PLCC, and interpreting as
accuracy on LLVisionQA. Both are taken as they are here, with the accuracy corrected for what guessing gets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..config import ConfigError

OBJECTIVES = ("harmonic", "weighted", "constrained")


def scoring_of(figures: dict[str, Any]) -> float:
    """(SRCC + PLCC) / 2, in [-1, 1]. A model whose scores are all equal has neither: it agrees with nothing, 0."""
    return (0.0 if figures["srcc"] is None else (figures["srcc"] + figures["plcc"]) / 2.0) + 0.0


def corrected(accuracy: Any, chance: float) -> Any:
    """Accuracy above guessing: 0 for what guessing gets, 1 for all right."""
    return (accuracy - chance) / (1.0 - chance)


def harmonic(scoring: Any, right: Any) -> np.ndarray:
    """Harmonic mean, elementwise; 0 where one of the two is not above 0."""
    both = np.maximum(scoring, 0.0), np.maximum(right, 0.0)
    total = both[0] + both[1]
    return np.where(total > 0, 2.0 * both[0] * both[1] / np.where(total > 0, total, 1.0), 0.0)


@dataclass(frozen=True)
class Objective:
    """
    - harmonic: harmonic mean of scoring and corrected accuracy; 0 where one of them is not above 0.
    - weighted: ``scoring_weight`` of scoring and the rest of corrected accuracy.
    - constrained: corrected accuracy where scoring is at most ``margin`` below the best; elsewhere below -1.

    ``chance``: accuracy of guessing, .379 on LLVisionQA. Corrected accuracy is (accuracy - chance) / (1 - chance).
    """

    name: str = "harmonic"
    chance: float = 0.0
    scoring_weight: float = 0.5
    margin: float = 0.005

    def __post_init__(self) -> None:
        if self.name not in OBJECTIVES:
            raise ConfigError(f"objective is {self.name!r}: give one of {', '.join(OBJECTIVES)}")
        if not 0 <= self.scoring_weight <= 1 or not 0 <= self.margin <= 1 or not 0 <= self.chance < 1:
            raise ConfigError("scoring_weight, margin and chance must be from 0 to 1, chance below 1")

    def __call__(self, scoring: Any, accuracy: Any, best: Any = None) -> np.ndarray:
        """The value of mixtures, elementwise.

        ``best``: scoring that "constrained" compares with; by default the highest along the last axis.
        """
        scoring, right = np.asarray(scoring, float), corrected(np.asarray(accuracy, float), self.chance)
        if self.name == "weighted":
            return self.scoring_weight * scoring + (1.0 - self.scoring_weight) * right
        if self.name == "constrained":
            short = (scoring.max(axis=-1, keepdims=scoring.ndim > 0) if best is None else best) - self.margin - scoring
            return np.where(short <= 0, right, -1.0 - np.maximum(short, 0.0))
        return harmonic(scoring, right)

    def describe(self) -> dict[str, Any]:
        """As ratio.yaml says it."""
        told: dict[str, Any] = {"name": self.name, "chance": round(self.chance, 6)}
        if self.name == "weighted":
            told["scoring_weight"] = self.scoring_weight
        if self.name == "constrained":
            told["margin"] = self.margin
        return told


def pareto(values: Sequence[tuple[float, float]]) -> list[int]:
    """Numbers of those than which no other is at least as good in both and better in one."""
    pairs = np.asarray(values, float).reshape(-1, 2)
    return [
        number
        for number, one in enumerate(pairs)
        if not any(np.all(other >= one) and np.any(other > one) for other in pairs)
    ]
