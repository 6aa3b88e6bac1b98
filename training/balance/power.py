"""Whether a comparison can find a gain of the size that Q-SiT's authors report, and with how many seeds it could."""

from __future__ import annotations

import numpy as np

from .fit import CONFIDENCE
from .objective import Objective

PAPER_SCORING, PAPER_ACCURACY = 0.006, 0.024
"""By how much the tuned mixture was better than the naive one with the 7B model: (SRCC + PLCC) / 2 and accuracy on
LLVisionQA (the paper's table VII: .861 and .756 against .855 and .732)."""
WANTED = 0.8
"""The usual power to plan for (Cohen 1988)."""
FEWEST, MOST = 5, 100
"""Seeds to ask for. Fewer than five tell too little about the noise itself, from which their number is computed."""


def paper_gain(objective: Objective, scoring: float, accuracy: float) -> float:
    """The paper's gain as one of the objective, beginning at these figures."""
    return float(objective(scoring + PAPER_SCORING, accuracy + PAPER_ACCURACY) - objective(scoring, accuracy))


def power(gain: float, noise: float, seeds: int, rows: float = 0.0) -> float:
    """How often two mixtures that differ by ``gain`` are found to differ at 95%, in the right direction.

    Args:
        gain: true difference of the objective.
        noise: standard deviation of the objective from seed to seed, the same for both.
        seeds: of each mixture; with one the noise is not known, and nothing is found.
        rows: standard error of the difference by the choice of validation rows.

    From the noncentral t distribution, with the degrees of freedom of Welch's test.
    """
    from scipy.stats import nct, norm, t

    if seeds < 2:
        return 0.0
    by_seeds = noise**2 / seeds
    total = 2.0 * by_seeds + rows**2
    if total == 0.0:
        return float(gain > 0.0)
    level, shift = 0.5 + CONFIDENCE / 2, gain / float(np.sqrt(total))
    freedom = np.inf if by_seeds == 0.0 else total**2 * (seeds - 1) / (2.0 * by_seeds**2)
    if freedom > 1e4:  # nct is slow and less exact there
        return float(norm.sf(norm.ppf(level) - shift))
    return float(nct.sf(t.ppf(level, freedom), freedom, shift))


def seeds_needed(gain: float, noise: float, rows: float = 0.0) -> int | None:
    """The fewest seeds with a power of ``WANTED``, from ``FEWEST`` up; None where ``MOST`` do not give it."""
    counts = range(FEWEST, MOST + 1)
    return next((count for count in counts if power(gain, noise, count, rows) >= WANTED), None)


def gain_text(gain: float) -> str:
    return (
        f"a gain of the paper's size (scoring {PAPER_SCORING:+.3f}, accuracy {100 * PAPER_ACCURACY:+.1f} points: "
        f"harmonic {gain:+.3f})"
    )
