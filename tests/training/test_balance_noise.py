"""How sure a balance is: intervals that hold the choice of validation rows, and what a comparison can find at all."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from qsit_plugin.training.balance.design import Design
from qsit_plugin.training.balance.items import BY_FORMULA, MEASURED, PSEUDO, deviations, weighted_accuracy
from qsit_plugin.training.balance.items import weighted_scoring as scoring_of
from qsit_plugin.training.balance.objective import Objective
from qsit_plugin.training.balance.power import paper_gain, power, seeds_needed
from qsit_plugin.training.balance.report import make_report
from qsit_plugin.training.balance.surface import accuracy_error, half_interval, srcc_error
from qsit_plugin.training.balance.trials import Trial
from qsit_plugin.training.balance.verify import compare, welch
from tests.training.test_balance_fit import folder_of

stats = pytest.importorskip("scipy.stats")
EQUAL, CHOSEN = (0.5, 0.5), (0.4, 0.6)


def weights_of(images: int) -> np.ndarray:
    return np.random.default_rng(0).exponential(size=(200, images + len(PSEUDO)))


def trial_on(right: np.ndarray, point: tuple = EQUAL, seed: int = 0, *, kept: bool = True) -> Trial:
    """A trial whose answers to the questions are known; scoring is the same for all."""
    weights = weights_of(len(right))
    accuracy = weighted_accuracy(right.astype(float), weights[:, :-4], weights[:, -4:])
    figures = {
        **{"srcc": 0.8, "plcc": 0.8, "accuracy": float(right.mean()), "score_loss": 1.0, "interpret_loss": 1.0},
        "counts": {"score": 100, "interpret": len(right), "choices": len(right), "images": len(right)},
    }
    kept_figures = {"scoring": [0.8] * 200, "accuracy": accuracy.tolist()}
    return Trial("", point, seed, figures, kept_figures if kept else None)


# ---- figures on other rows ----


def test_figures_under_equal_weights_are_scipys() -> None:
    rng = np.random.default_rng(0)
    target = rng.normal(size=60)
    predicted = np.round(target + rng.normal(size=60), 1)  # with ties
    expected = (stats.spearmanr(predicted, target)[0] + stats.pearsonr(predicted, target)[0]) / 2
    assert scoring_of(predicted, target, np.ones((1, 60)))[0] == pytest.approx(expected)
    twice = scoring_of(predicted, target, np.tile([2.0, 0.0], 30)[None])[0]
    half = predicted[::2], target[::2]
    # rows of weight 0 are not there
    assert twice == pytest.approx((stats.spearmanr(*half)[0] + stats.pearsonr(*half)[0]) / 2)


@pytest.mark.parametrize("kept", [True, False])
def test_intervals_of_an_accuracy_cover_that_of_all_questions(kept: bool) -> None:
    """30 questions out of very many, answered alike by all seeds: their scatter is 0 and tells nothing of the
    questions. By itself it covered the accuracy of all questions only where that of these was the same."""
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(200):
        right = rng.random(30) < 0.9
        trials = [trial_on(right, seed=seed, kept=kept) for seed in range(3)]
        off, by = deviations(trials)
        assert by == (MEASURED if kept else BY_FORMULA)
        scatter = np.var([trial.figures["accuracy"] for trial in trials], ddof=1) / 3
        half = half_interval([(scatter, 2), (off.mean(axis=0)[:, 1].var(), np.inf)])
        covered += abs(right.mean() - 0.9) <= half
    assert 180 <= covered <= 200  # 95% of 200 are 190, give or take 3


def test_intervals_of_scoring_cover_that_of_all_ratings() -> None:
    rng = np.random.default_rng(2)
    target = rng.normal(size=100_000)
    predicted = target + 0.5 * rng.normal(size=100_000)
    truth, covered = scoring_of(predicted, target, np.ones((1, 100_000)))[0], 0
    for _ in range(200):
        rows = rng.integers(100_000, size=60)
        values = scoring_of(predicted[rows], target[rows], weights_of(60)[:, :60])
        found = scoring_of(predicted[rows], target[rows], np.ones((1, 60)))[0]
        covered += abs(found - truth) <= 1.96 * values.std()
    assert 174 <= covered <= 200
    assert values.std() == pytest.approx(srcc_error(0.89, 60), rel=0.5)


def test_what_both_mixtures_find_hard_cancels_in_their_difference_and_what_one_finds_hard_does_not() -> None:
    rng = np.random.default_rng(3)
    right = rng.random(400) < 0.6
    alike = right.copy()
    alike[:8] = ~alike[:8]
    other = rng.random(400) < 0.6
    errors = []
    for chosen in (right, alike, other):
        members = [trial_on(chosen, CHOSEN), trial_on(right, EQUAL)]
        off, _ = deviations(members)
        errors.append(float((off[0] - off[1])[:, 1].std()))
    assert errors[0] == pytest.approx(0, abs=1e-9)
    assert errors[1] == pytest.approx(np.sqrt(8) / 400, rel=0.2)
    assert errors[2] == pytest.approx(np.sqrt(2) * accuracy_error(0.6, 400), rel=0.2)


def test_a_report_has_the_sampling_error_of_few_questions_in_its_intervals(tmp_path: Path) -> None:
    """Once .933 [.933, .933] of 30 questions."""
    folder = folder_of(tmp_path, Design(2, "paper", (0, 1, 2)), noise=0.0)
    content = make_report(folder).ratio.content
    for name in ("optimum", "chosen", "equal", "published"):
        found = content["metrics"][name]
        for figure, count, error_of in (("accuracy", 200, accuracy_error), ("scoring", 300, srcc_error)):
            value, (low, high) = found[figure]["value"], found[figure]["interval"]
            assert (high - low) / 2 == pytest.approx(1.96 * error_of(value, count), rel=0.15), (name, figure)


# ---- comparisons ----


def test_a_difference_that_other_questions_could_turn_is_within_noise() -> None:
    """All seeds alike: Welch's interval of them alone is a point, and once made any difference a better one."""
    right = np.arange(40) < 24
    more = right.copy()
    more[[24, 25]] = True
    trials = [trial_on(r, p, seed) for r, p in ((more, CHOSEN), (right, EQUAL)) for seed in range(3)]
    outcome = compare({"chosen": CHOSEN, "equal": EQUAL}, trials, Objective("weighted", scoring_weight=0.0))["equal"]
    assert outcome["chosen_ahead"] == pytest.approx(0.05)
    assert outcome["rows_error"] == pytest.approx(np.sqrt(2) / 40, rel=0.25)
    assert outcome["verdict"] == "within noise"


@pytest.mark.parametrize(
    ("seeds", "noise", "rows"), [(3, 0.02, 0.0), (3, 0.008, 0.01), (5, 0.015, 0.0), (8, 0.02, 0.004)]
)
def test_power_is_how_often_a_simulated_gain_is_found(seeds: int, noise: float, rows: float) -> None:
    gain, runs = 0.025, 1500
    rng = np.random.default_rng(seeds)
    found = 0
    for _ in range(runs):
        one, other = rng.normal(0, noise, (2, seeds))
        ahead, half = welch(one + gain + rng.normal(0, rows), other, rows**2)
        found += ahead > half
    # Welch's degrees of freedom vary from run to run, the formula has their usual number
    assert power(gain, noise, seeds, rows) == pytest.approx(found / runs, abs=0.05)


def test_seeds_that_are_asked_for_are_five_at_least_and_enough() -> None:
    assert power(0.025, 0.02, 3) < 0.3
    needed = seeds_needed(0.025, 0.02)
    assert needed is not None
    assert power(0.025, 0.02, needed) >= 0.8 > power(0.025, 0.02, needed - 1)
    assert seeds_needed(0.025, 0.001) == 5
    assert seeds_needed(0.025, 0.001, rows=0.02) is None  # no number of seeds makes up for too few questions
    assert power(0.025, 0.001, 1) == 0.0


def test_the_papers_gain_is_one_of_the_objective() -> None:
    assert paper_gain(Objective("weighted", chance=0.25), 0.8, 0.6) == pytest.approx(0.5 * 0.006 + 0.5 * 0.024 / 0.75)
    assert paper_gain(Objective("constrained", chance=0.25), 0.8, 0.6) == pytest.approx(0.024 / 0.75)


def test_a_trial_with_other_weights_than_ours_is_read_by_the_formulas() -> None:
    trial = trial_on(np.arange(30) < 20)
    short = replace(trial, reweighted={"scoring": [0.8], "accuracy": [0.6]})
    assert deviations([trial, short])[1] == BY_FORMULA
