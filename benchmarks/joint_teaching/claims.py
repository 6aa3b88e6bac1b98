"""What finished runs say of the paper's three claims, by rules that were fixed before there were any: see README.md."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from qsit_plugin.training.balance.noise import half_interval
from qsit_plugin.training.balance.objective import Objective
from qsit_plugin.training.balance.trials import Trial
from qsit_plugin.training.balance.verify import compare

from .arms import BALANCED
from .figures import QUESTIONS

MARGINS = {"scoring": 0.02, "interpreting": 0.03}
"""By how much a joint model may be worse and still count as not hurt: three times what the paper's mixtures differ in
scoring (.006), and about what they differ in accuracy (.024)."""

NAIVE = ("by-size", "equal")
JOINT = (*NAIVE, "published", BALANCED)
SHOWN = ("srcc", "scoring", "unseen", *QUESTIONS, "interpreting")
SUPPORTED, CONTRADICTED, NOISE, OPEN = "supported", "contradicted", "no difference beyond noise", "not run yet"

Runs = Sequence[dict[str, Any]]


def of_arm(runs: Runs, name: str) -> list[dict[str, Any]]:
    return [run for run in runs if run["arm"] == name]


def ahead(runs: Runs, one: str, other: str, figure: str) -> tuple[float, float] | None:
    """By how much the mean of ``figure`` over the seeds of an arm is above another's, and half of the 95% interval of
    that: Welch's, the scatter pooled over all arms, with the choice of photos beside it. None where an arm has no run,
    infinite with one seed.
    """
    sides = [of_arm(runs, name) for name in (one, other)]
    if not all(sides):
        return None
    values = {name: [run[figure]["value"] for run in of_arm(runs, name)] for name in {run["arm"] for run in runs}}
    free = sum(len(found) - 1 for found in values.values())
    squares = sum(float(((np.array(found) - np.mean(found)) ** 2).sum()) for found in values.values())
    means = [float(np.mean(values[name])) for name in (one, other)]
    if not free:
        return means[0] - means[1], math.inf
    # a weighting moves both arms: its mean is their difference, its scatter what other photos would have changed
    draws = [np.mean([run["draws"][figure] for run in side], axis=0) for side in sides]
    parts = [(squares / free / len(side), float(free)) for side in sides]
    half = half_interval([*parts, (float((draws[0] - draws[1]).var()), math.inf)])
    return means[0] - means[1], float(half)


def unhurt(runs: Runs) -> tuple[str, list[str]]:
    """Joint teaching hurts neither task: balanced against the arm that has its rows of one task alone."""
    lines, verdicts = [], []
    for figure, margin in MARGINS.items():
        name = f"{figure}-own-rows"
        if (found := ahead(runs, BALANCED, name, figure)) is None:
            return OPEN, [f"{name} or {BALANCED} has no run"]
        gain, half = found
        verdict = SUPPORTED if gain - half > -margin else CONTRADICTED if gain + half < 0 else NOISE
        verdicts.append(verdict)
        lines.append(f"{figure}: {_difference(gain, half)} against {name}, margin -{margin:g}: {verdict}")
    for figure, name in (("scoring", "scoring-only"), ("interpreting", "interpreting-only")):
        if (found := ahead(runs, BALANCED, name, figure)) is not None:
            lines.append(f"at equal cost, {figure}: {_difference(*found)} against {name}")
    worst = CONTRADICTED if CONTRADICTED in verdicts else NOISE if NOISE in verdicts else SUPPORTED
    return worst, lines


def compared(runs: Runs) -> dict[str, dict[str, Any]]:
    """``verify.compare`` of the joint arms, balanced as the chosen one; empty where it has no run."""
    joint = [run for run in runs if run["arm"] in JOINT]
    points = {run["arm"]: tuple(run["point"]) for run in joint}
    if BALANCED not in points:
        return {}
    chance = float(np.mean(list(joint[0]["chance"].values())))
    once = {(tuple(run["point"]), run["seed"]): run for run in joint}  # two arms may be one mixture
    trials = [as_trial(run) for run in once.values()]
    named = {"chosen": points.pop(BALANCED)} | {name: points[name] for name in JOINT if name in points}
    return compare(named, trials, Objective(chance))


def as_trial(run: dict[str, Any]) -> Trial:
    figures = {"srcc": run["scoring"]["value"], "plcc": run["scoring"]["value"]}  # whose mean is taken
    figures |= {"accuracy": run["interpreting"]["value"], "score_loss": None, "interpret_loss": None}
    draws = {"scoring": run["draws"]["scoring"], "accuracy": run["draws"]["interpreting"]}
    return Trial(tuple(run["point"]), run["seed"], figures, draws)


def better(outcome: dict[str, dict[str, Any]]) -> tuple[str, list[str]]:
    """The balanced mixture beats the naive ones, by the harmonic mean of both tasks."""
    if not all(name in outcome for name in NAIVE):
        return OPEN, [f"{' or '.join((*NAIVE, BALANCED))} has no run"]
    lines = [f"against {name}: {_told(found)}" for name, found in outcome.items() if name != "chosen"]
    verdicts = [outcome[name]["verdict"] for name in NAIVE]
    if "worse" in verdicts:
        return CONTRADICTED, lines
    return (SUPPORTED if verdicts == ["better"] * len(NAIVE) else NOISE), lines


def carried(outcome: dict[str, dict[str, Any]], flat: bool) -> tuple[str, list[str]]:
    """The light model's ratio carries over: where it is better than some joint mixture and worse than none. ``flat``:
    the light model could not tell its mixtures apart, so there was no ratio to carry."""
    if not all(name in outcome for name in JOINT[:-1]):
        return OPEN, [f"{' or '.join(JOINT)} has no run"]
    verdicts = [found["verdict"] for name, found in outcome.items() if name != "chosen"]
    lines = ["the light model's optimum is flat: it chose no ratio"] if flat else []
    lines.append("against the other joint mixtures: " + ", ".join(verdicts))
    if "worse" in verdicts:
        return CONTRADICTED, lines
    return (SUPPORTED if "better" in verdicts and not flat else NOISE), lines


def page(runs: Runs, ratio: dict[str, Any] | None, title: str) -> Iterator[str]:
    """Table and verdicts as Markdown."""
    yield f"## {title}"
    yield ""
    yield f"| arm | scoring : quality : general | rows | seeds | {' | '.join(SHOWN)} |"
    yield f"|---|---|---:|---:|{'---:|' * len(SHOWN)}"
    for name in dict.fromkeys(run["arm"] for run in runs):
        some = of_arm(runs, name)
        shares = " : ".join(f"{100 * share:.0f}" for share in some[0]["point"])
        cells = " | ".join(_cell(some, figure) for figure in SHOWN)
        yield f"| {name} | {shares} | {some[0]['samples']:,} | {len(some)} | {cells} |"
    outcome = compared(runs)
    flat = bool(ratio and ratio["flat"])
    claims = (
        ("Joint teaching does not hurt either task", unhurt(runs)),
        ("The balanced mixture beats the naive ones", better(outcome)),
        ("The light model's ratio carries over", carried(outcome, flat)),
    )
    for claim, (verdict, lines) in claims:
        yield ""
        yield f"**{claim}: {verdict}.**"
        yield ""
        yield from (f"- {line}" for line in lines)


def _cell(some: Runs, figure: str) -> str:
    """Mean over seeds, and the mean ends of the intervals by the choice of photos."""
    values = [run[figure]["value"] for run in some]
    ends = [run[figure]["interval"] for run in some]
    if any(value is None for value in values):
        return "-"
    told = f"{np.mean(values):.3f}"
    return told if any(end is None for end in ends) else told + " [{:.3f}, {:.3f}]".format(*np.mean(ends, axis=0))


def _difference(gain: float, half: float) -> str:
    return f"{gain:+.3f} [{gain - half:+.3f}, {gain + half:+.3f}]" if math.isfinite(half) else f"{gain:+.3f} (one seed)"


def _told(found: dict[str, Any]) -> str:
    if "chosen_ahead" not in found:
        return found["verdict"]
    interval = found["interval"]
    inside = "one seed says nothing about noise" if interval is None else "[{:+.3f}, {:+.3f}]".format(*interval)
    return f"{found['chosen_ahead']:+.3f} {inside}, {found['verdict']}"
