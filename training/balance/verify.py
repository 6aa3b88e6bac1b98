"""Whether a mixture that the light model has found is also better on the primary one: short runs, compared."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..config import RunConfig
from ..requirements import require_training
from ..settings_file import ConfigError
from .design import Design, Planned, Point
from .noise import NAMES, measured, scatter
from .objective import Objective
from .power import FEWEST, PAPER_ACCURACY, PAPER_SCORING, WANTED, gain_text, paper_gain, power, seeds_needed
from .ratio import Ratio, check_fits, write_ratio
from .study import model_name, open_study
from .trials import Trial, Worker, run_trials


def verify(
    ratio: Ratio,
    config: RunConfig,
    output: str | Path,
    *,
    samples: int,
    validation: str | Path,
    seeds: Sequence[int] = (0, 1, 2),
    images: str | None = None,
    limit: int | None = None,
    worker: Worker | None = None,
    say: Callable[[str], None] = print,
    log: Callable[[str], None] | None = None,
) -> Ratio | None:
    """Train ``config``'s model on the chosen, the equal and the published mixture, compare them on validation rows, and
    write the outcome into the ratio's file.

    Only a difference from the equal mixture that noise does not explain makes it ``verified: true``; how often a gain
    of the paper's size would be found stands beside it. Returns None where other workers have trials to finish first.
    Raises ConfigError as a search does, and where the ratio does not fit.
    """
    require_training()
    check_fits(ratio, config)
    if ratio.content["objective"]["name"] != "harmonic":
        raise ConfigError(
            f"{ratio.path} was found with objective: {ratio.content['objective']['name']}, which was removed: write it "
            "anew with qsit train balance report FOLDER of its search"
        )
    groups = {name: tuple(members) for name, members in ratio.content["groups"].items()}
    study = open_study(
        config, output, samples=samples, validation=validation, sources=groups, images=images, limit=limit
    )
    chosen = tuple(round(sum(ratio.shares[name] for name in members), 6) for members in groups.values())
    points: dict[str, Point] = {"chosen": chosen} | Design(len(groups), (0,)).baselines
    say_power(ratio, len(seeds), say)
    planned = list(dict.fromkeys(Planned(point, seed) for seed in seeds for point in points.values()))
    finished = run_trials(study, planned, worker=worker, say=say, log=log)
    if len(finished) < len(planned):
        return None
    objective = Objective(study.record["validation"]["chance"])
    outcome = compare(points, finished, objective)
    verification = {
        "model": model_name(config.base),
        "samples": samples,
        "seeds": list(seeds),
        "mixtures": outcome,
        "power": power_content(finished, objective, outcome["equal"], len(seeds)),
    }
    verified = outcome["equal"]["verdict"] == "better"
    done = replace(ratio, content=ratio.content | {"verified": verified, "verification": verification})
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
        if name == "chosen":
            continue
        if points[name] == points["chosen"]:
            outcome[name]["verdict"] = "the same mixture"
            continue
        ahead, half, rows = estimates["chosen"].ahead(one)
        known = bool(np.isfinite(half))
        verdict = "better" if ahead > half else "worse" if ahead < -half else "within noise" if known else "one seed"
        outcome[name] |= {
            "chosen_ahead": round(ahead, 4),
            "interval": [round(ahead - half, 4), round(ahead + half, 4)] if known else None,
            "rows_error": round(rows, 4),
            "verdict": verdict,
        }
    return outcome


# ---- power ----


def power_content(trials: Sequence[Trial], objective: Objective, equal: dict[str, Any], seeds: int) -> dict[str, Any]:
    """What a comparison like this one can find of a gain of the paper's size. ``equal``: the equal mixture's outcome."""
    noise, free = float(scatter(trials, objective)[0][2]), scatter(trials, objective)[1]
    gain, rows = paper_gain(objective, equal["scoring"], equal["accuracy"]), equal.get("rows_error", 0.0)
    return {
        "gain": {"scoring": PAPER_SCORING, "accuracy": PAPER_ACCURACY, "objective": round(gain, 4)},
        "noise": round(noise, 4) if free else None,
        "power": round(power(gain, noise, seeds, rows), 3) if free else 0.0,
        "seeds_needed": seeds_needed(gain, noise, rows) if free else None,
    }


def say_power(ratio: Ratio, seeds: int, say: Callable[[str], None]) -> None:
    """Before hours are spent: where the light model's noise lets so few seeds find little."""
    equal = ratio.content["metrics"].get("equal")
    if equal is None:  # the report of a search that was stopped early
        return
    noise, objective = (
        ratio.content["noise"]["single_trial"]["objective"],
        Objective(ratio.content["objective"]["chance"]),
    )
    gain = paper_gain(objective, equal["scoring"]["value"], equal["accuracy"]["value"])
    found_in, needed = power(gain, noise, seeds), seeds_needed(gain, noise)
    if found_in < WANTED:
        more = "" if needed is None else f"; --seeds {needed} would find it in {power(gain, noise, needed):.0%}"
        say(
            f"with the light model's noise, {gain_text(gain)} is found in {found_in:.0%} of comparisons with --seeds "
            f"{seeds}{more}"
        )


def power_line(done: dict[str, Any]) -> str:
    """``done``: the verification as ratio.yaml has it."""
    told, seeds = done["power"], len(done["seeds"])
    line = f"power: {gain_text(told['gain']['objective'])} is found in {told['power']:.0%} of comparisons like this"
    if told["power"] >= WANTED or done["mixtures"]["equal"]["verdict"] not in ("within noise", "one seed"):
        return line
    if told["noise"] is None:
        return f"{line}, as one seed does not tell the noise: give --seeds {FEWEST} (finished trials are kept)"
    if told["seeds_needed"] is None:
        return f"{line}, and more seeds alone do not help: give more validation rows, or more --samples"
    return f"{line}: {seeds} seeds cannot tell, give --seeds {told['seeds_needed']} (finished trials are kept)"


def verify_lines(ratio: Ratio) -> Iterator[str]:
    """The outcome in six lines at most."""
    done = ratio.content["verification"]
    yield f"{done['model']}, {done['samples']:,} rows, {len(done['seeds'])} seeds"
    for name, found in done["mixtures"].items():
        figures = "(SRCC+PLCC)/2 {scoring:.3f}, accuracy {accuracy:.3f}, harmonic {objective:.3f}".format(**found)
        yield f"{name:<10} {figures}" + (f"; chosen against it: {_verdict(found)}" if "verdict" in found else "")
    yield power_line(done)
    yield f"verified: {str(ratio.content['verified']).lower()} ({ratio.path})"


def _verdict(found: dict[str, Any]) -> str:
    if found["verdict"] == "the same mixture":
        return found["verdict"]
    if found["interval"] is None:
        return f"{found['chosen_ahead']:+.3f}; one seed says nothing about noise, give more"
    low, high = found["interval"]
    verdict = "the difference is within noise" if found["verdict"] == "within noise" else found["verdict"]
    return f"{found['chosen_ahead']:+.3f} [{low:+.3f}, {high:+.3f}], {verdict}"
