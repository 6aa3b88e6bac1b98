"""Whether a comparison can find a gain of the size that Q-SiT's authors report, and with how many seeds it could."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from . import surface
from .analysis import figures_of
from .objective import Objective
from .ratio import Ratio
from .surface import CONFIDENCE
from .trials import Trial

PAPER_SCORING, PAPER_ACCURACY = 0.006, 0.024
"""By how much the tuned mixture was better than the naive one with the 7B model: (SRCC + PLCC) / 2 and accuracy on
LLVisionQA (the paper's table VII: .861 and .756 against .855 and .732)."""
WANTED = 0.8
"""The usual power to plan for (Cohen 1988)."""
FEWEST, MOST = 5, 100
"""Seeds to ask for. Fewer than five tell too little about the noise itself, from which their number is reckoned."""


def paper_gain(objective: Objective, scoring: float, accuracy: float) -> float:
    """The paper's gain as one of the objective, beginning at these figures. For constrained: that of accuracy alone."""
    after = objective(scoring + PAPER_SCORING, accuracy + PAPER_ACCURACY, scoring)
    return float(after - objective(scoring, accuracy, scoring))


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
    if freedom > 1e4:
        return float(norm.sf(norm.ppf(level) - shift))
    return float(nct.sf(t.ppf(level, freedom), freedom, shift))


def seeds_needed(gain: float, noise: float, rows: float = 0.0) -> int | None:
    """The fewest seeds with a power of ``WANTED``, from ``FEWEST`` up; None where ``MOST`` do not give it."""
    counts = range(FEWEST, MOST + 1)
    return next((count for count in counts if power(gain, noise, count, rows) >= WANTED), None)


# ---- of a comparison ----


def power_content(trials: Sequence[Trial], objective: Objective, found: dict[str, Any], seeds: int) -> dict[str, Any]:
    """What a comparison like this one can find of a gain of the paper's size. ``found``: against the equal mixture."""
    table = figures_of(trials)
    top = float(table[:, 0].max())
    noise = surface.noise(
        np.array([trial.point for trial in trials]), objective(table[:, 0], table[:, 1], top)[:, None]
    )
    gain, rows = paper_gain(objective, found["scoring"], found["accuracy"]), found.get("rows_error", 0.0)
    told: dict[str, Any] = {"gain": {"scoring": PAPER_SCORING, "accuracy": PAPER_ACCURACY, "objective": round(gain, 4)}}
    if not np.isfinite(noise[0]):
        return told | {"noise": None, "power": 0.0, "seeds_needed": None}
    needed = seeds_needed(gain, float(noise[0]), rows)
    found_in = power(gain, float(noise[0]), seeds, rows)
    return told | {"noise": round(float(noise[0]), 4), "power": round(found_in, 3), "seeds_needed": needed}


def say_power(ratio: Ratio, seeds: int, say: Callable[[str], None]) -> None:
    """Before hours are spent: where the light model's noise lets so few seeds find little."""
    noise = ratio.content.get("noise", {}).get("single_trial", {}).get("objective")
    equal = ratio.content["metrics"].get("equal")
    if noise is None or equal is None:
        return
    objective = Objective(**ratio.content["objective"])
    gain = paper_gain(objective, equal["scoring"]["value"], equal["accuracy"]["value"])
    found_in, needed = power(gain, noise, seeds), seeds_needed(gain, noise)
    more = "" if needed is None else f"; --seeds {needed} would find it in {power(gain, noise, needed):.0%}"
    if found_in < WANTED:
        say(
            f"with the light model's noise, {_gain_text(gain, objective.name)} is found in {found_in:.0%} of "
            f"comparisons with --seeds {seeds}{more}"
        )


def _gain_text(gain: float, name: str) -> str:
    return (
        f"a gain of the paper's size (scoring {PAPER_SCORING:+.3f}, accuracy {100 * PAPER_ACCURACY:+.1f} points: "
        f"{name} {gain:+.3f})"
    )


def power_line(done: dict[str, Any], name: str) -> str:
    """For people. ``done``: the verification as ratio.yaml has it; ``name``: of the objective."""
    told, seeds = done["power"], len(done["seeds"])
    line = (
        f"power: {_gain_text(told['gain']['objective'], name)} is found in {told['power']:.0%} of comparisons like this"
    )
    if told["power"] >= WANTED or done["mixtures"]["equal"]["verdict"] not in ("within noise", "one seed"):
        return line
    if told["noise"] is None:
        return f"{line}, as one seed does not tell the noise: give --seeds {FEWEST} (finished trials are kept)"
    if told["seeds_needed"] is None:
        return f"{line}, and more seeds alone do not help: give more validation rows, or more --samples"
    return f"{line}: {seeds} seeds cannot tell, give --seeds {told['seeds_needed']} (finished trials are kept)"
