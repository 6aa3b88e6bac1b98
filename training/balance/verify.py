"""Whether a mixture that the light model has found is also better on the primary one: short runs, compared."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..config import RunConfig
from ..requirements import require_training
from ..settings_file import ConfigError
from .design import Planned, Point
from .fit import CONFIDENCE
from .noise import NAMES, measured, scatter
from .objective import Objective
from .ratio import Ratio, check_fits, write_ratio
from .settings import SearchSettings
from .study import model_name, open_study
from .trials import Trial, run_trials

PAPER_SCORING, PAPER_ACCURACY = 0.006, 0.024
"""By how much the tuned mixture was better than the naive one with the 7B model: (SRCC + PLCC) / 2 and accuracy on
LLVisionQA (the paper's table VII: .861 and .756 against .855 and .732)."""
WANTED = 0.8
"""The usual power to plan for (Cohen 1988)."""
FEWEST, MOST = 5, 100
"""Seeds to ask for. Fewer than five tell too little about the noise itself, from which their number is computed."""


def verify(
    ratio: Ratio,
    config: RunConfig,
    settings: SearchSettings,
    *,
    worker: tuple[int, int] = (1, 1),
    say: Callable[[str], None] = print,
    log: Callable[[str], None] | None = None,
) -> Ratio | None:
    """Train ``config``'s model on the chosen, the equal and the published mixture, compare them on validation rows, and
    write the outcome into the ratio's file. Of ``settings``: output, samples, validation and seeds.

    Only a difference from the equal mixture that noise does not explain makes it ``verified: true``; how often a gain
    of the paper's size would be found stands beside it. Returns None where other workers have trials to finish first.
    Raises ConfigError as a search does, and where the ratio does not fit.
    """
    require_training()
    check_fits(ratio, config)
    if (name := ratio.content["objective"]["name"]) != "harmonic":
        told = f"{ratio.path} was found with objective: {name}, which was removed"
        raise ConfigError(f"{told}: write it anew with qsit train balance report FOLDER of its search")
    groups, seeds = ratio.content["groups"], settings.seeds
    study = open_study(config, replace(settings, sources=groups))
    chosen = tuple(round(sum(ratio.shares[name] for name in members), 6) for members in groups.values())
    points: dict[str, Point] = {"chosen": chosen} | settings.design(len(groups)).baselines
    if line := forecast(ratio, len(seeds)):
        say(line)
    planned = list(dict.fromkeys(Planned(point, seed) for seed in seeds for point in points.values()))
    finished = run_trials(study, planned, worker=worker, say=say, log=log)
    if finished is None:
        return None
    objective = settings.target(study.record["validation"]["chance"])
    outcome = compare(points, finished, objective)
    equal, (sd, _) = outcome["equal"], scatter(finished, objective)
    gain = paper_gain(objective, equal["scoring"], equal["accuracy"])
    verification = {
        "model": model_name(config.base),
        "samples": settings.samples,
        "seeds": list(seeds),
        "mixtures": outcome,
        "power": outlook(gain, float(sd[2]), len(seeds), equal.get("rows_error", 0.0)),
    }
    content = ratio.content | {"verified": equal["verdict"] == "better", "verification": verification}
    done = replace(ratio, content=content)
    write_ratio(done)
    return done


def compare(points: Mapping[str, Point], trials: Sequence[Trial], objective: Objective) -> dict[str, dict[str, Any]]:
    """Means of each mixture, and how far the chosen one is ahead of the others with a 95% interval: Welch's, with the
    choice of validation rows beside the scatter of seeds (``rows_error``: the standard error of the difference by it).

    The verdict is "better" or "worse" where that interval is above or below 0, else "within noise"; with one seed noise
    is not known, and the verdict is "one seed".
    """
    members = {name: [trial for trial in trials if trial.point == point] for name, point in points.items()}
    estimates = {name: measured(found, objective, *scatter(found, objective)) for name, found in members.items()}
    outcome: dict[str, dict[str, Any]] = {}
    for name, one in estimates.items():
        outcome[name] = dict(zip(NAMES, one.values.round(4).tolist(), strict=True))
        if name != "chosen" and points[name] == points["chosen"]:
            outcome[name]["verdict"] = "the same mixture"
        elif name != "chosen":
            ahead, half, rows = estimates["chosen"].ahead(one)
            interval = [round(ahead - half, 4), round(ahead + half, 4)] if np.isfinite(half) else None
            found = {"chosen_ahead": round(ahead, 4), "interval": interval, "rows_error": round(rows, 4)}
            beyond = "better" if ahead > half else "worse" if ahead < -half else "within noise"
            outcome[name] |= found | {"verdict": beyond if interval else "one seed"}
    return outcome


# ---- power ----


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

    by_seeds = noise**2 / seeds
    total = 2.0 * by_seeds + rows**2
    if seeds < 2 or total == 0.0:
        return float(seeds >= 2 and gain > 0.0)
    level, shift = 0.5 + CONFIDENCE / 2, gain / float(np.sqrt(total))
    freedom = np.inf if by_seeds == 0.0 else total**2 * (seeds - 1) / (2.0 * by_seeds**2)
    if freedom > 1e4:  # nct is slow and less exact there
        return float(norm.sf(norm.ppf(level) - shift))
    return float(nct.sf(t.ppf(level, freedom), freedom, shift))


def seeds_needed(gain: float, noise: float, rows: float = 0.0) -> int | None:
    """The fewest seeds with a power of ``WANTED``, from ``FEWEST`` up; None where ``MOST`` do not give it."""
    counts = range(FEWEST, MOST + 1)
    return next((count for count in counts if power(gain, noise, count, rows) >= WANTED), None)


def outlook(gain: float, noise: float, seeds: int, rows: float = 0.0) -> dict[str, Any]:
    """What a comparison can find of a gain of the paper's size, as in ratio.yaml. ``noise``: nan where not known."""
    known = bool(np.isfinite(noise))
    return {
        "gain": {"scoring": PAPER_SCORING, "accuracy": PAPER_ACCURACY, "objective": round(gain, 4)},
        "noise": round(noise, 4) if known else None,
        "power": round(power(gain, noise, seeds, rows), 3) if known else 0.0,
        "seeds_needed": seeds_needed(gain, noise, rows) if known else None,
    }


def outlook_line(told: dict[str, Any], seeds: int) -> str:
    """For people; where the power is below ``WANTED`` with what would help."""
    gain = "scoring {scoring:+.3f}, accuracy {accuracy:+.1%}, harmonic {objective:+.3f}".format(**told["gain"])
    line = f"a gain of the paper's size ({gain}) is found in {told['power']:.0%} of comparisons with --seeds {seeds}"
    if told["power"] >= WANTED:
        return line
    if told["noise"] is None:
        return f"{line}, as one seed does not tell the noise: give --seeds {FEWEST} (finished trials are kept)"
    if told["seeds_needed"] is None:
        return f"{line}, and more seeds alone do not help: give more validation rows, or more --samples"
    return f"{line}, with --seeds {told['seeds_needed']} in {WANTED:.0%} or more (finished trials are kept)"


def forecast(ratio: Ratio, seeds: int) -> str | None:
    """By the light model's noise, before hours are spent: where so few seeds find little."""
    equal, noise = ratio.content["metrics"].get("equal"), ratio.content["noise"]["single_trial"]["objective"]
    if equal is None:  # the report of a search that was stopped early
        return None
    objective = Objective(ratio.content["objective"]["chance"])
    gain = paper_gain(objective, equal["scoring"]["value"], equal["accuracy"]["value"])
    told = outlook(gain, noise, seeds)
    return None if told["power"] >= WANTED else f"with the light model's noise, {outlook_line(told, seeds)}"


# ---- lines ----


def verify_lines(ratio: Ratio) -> Iterator[str]:
    """The outcome in six lines at most."""
    done = ratio.content["verification"]
    yield f"{done['model']}, {done['samples']:,} rows, {len(done['seeds'])} seeds"
    for name, found in done["mixtures"].items():
        line = "(SRCC+PLCC)/2 {scoring:.3f}, accuracy {accuracy:.3f}, harmonic {objective:.3f}".format(**found)
        yield f"{name:<10} {line}" + (f"; chosen against it: {_verdict(found)}" if "verdict" in found else "")
    yield f"power: {outlook_line(done['power'], len(done['seeds']))}"
    yield f"verified: {str(ratio.content['verified']).lower()} ({ratio.path})"


def _verdict(found: dict[str, Any]) -> str:
    if "chosen_ahead" not in found:
        return found["verdict"]
    if found["interval"] is None:
        return f"{found['chosen_ahead']:+.3f}; one seed says nothing about noise, give more"
    return "{:+.3f} [{:+.3f}, {:+.3f}], {}".format(found["chosen_ahead"], *found["interval"], found["verdict"])
