"""How sure a balance is: intervals that hold the choice of validation rows, and what a comparison can find at all."""

from pathlib import Path

import numpy as np
import pytest

from qsit_plugin.training.balance.design import Design
from qsit_plugin.training.balance.noise import (
    PSEUDO,
    Estimate,
    deviations,
    half_interval,
    measured,
    scatter,
    weighted_accuracy,
)
from qsit_plugin.training.balance.noise import weighted_scoring as scoring_of
from qsit_plugin.training.balance.objective import Objective
from qsit_plugin.training.balance.report import make_report
from qsit_plugin.training.balance.trials import Trial
from qsit_plugin.training.balance.verify import compare, paper_gain, power, seeds_needed
from tests.training.test_balance_fit import accuracy_error, folder_of, srcc_error

stats = pytest.importorskip("scipy.stats")
EQUAL, CHOSEN = (0.5, 0.5), (0.4, 0.6)


def weights_of(images: int) -> np.ndarray:
    return np.random.default_rng(0).exponential(size=(200, images + len(PSEUDO)))


def trial_on(right: np.ndarray, point: tuple = EQUAL, seed: int = 0) -> Trial:
    """A trial whose answers to the questions are known; scoring is the same for all."""
    weights = weights_of(len(right))
    accuracy = weighted_accuracy(right.astype(float), weights[:, :-4], weights[:, -4:])
    figures = {
        **{"srcc": 0.8, "plcc": 0.8, "accuracy": float(right.mean()), "score_loss": 1.0, "interpret_loss": 1.0},
        "counts": {"score": 100, "interpret": len(right), "choices": len(right), "images": len(right)},
    }
    return Trial(point, seed, figures, {"scoring": [0.8] * 200, "accuracy": accuracy.tolist()})


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


def test_intervals_of_an_accuracy_cover_that_of_all_questions() -> None:
    """30 questions out of very many, answered alike by all seeds: their scatter is 0 and tells nothing of the
    questions. By itself it covered the accuracy of all questions only where that of these was the same."""
    rng, objective = np.random.default_rng(1), Objective(0.0)
    covered = 0
    for _ in range(200):
        right = rng.random(30) < 0.9
        trials = [trial_on(right, seed=seed) for seed in range(3)]
        half = measured(trials, objective, *scatter(trials, objective)).half_interval()[1]
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
        off = deviations(members)
        errors.append(float((off[0] - off[1])[:, 1].std()))
    assert errors[0] == pytest.approx(0, abs=1e-9)
    assert errors[1] == pytest.approx(np.sqrt(8) / 400, rel=0.2)
    assert errors[2] == pytest.approx(np.sqrt(2) * accuracy_error(0.6, 400), rel=0.2)


def test_a_report_has_the_sampling_error_of_few_questions_in_its_intervals(tmp_path: Path) -> None:
    """Once .933 [.933, .933] of 30 questions."""
    folder = folder_of(tmp_path, Design(2, (0, 1, 2)), noise=0.0)
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
    outcome = compare({"chosen": CHOSEN, "equal": EQUAL}, trials, Objective(0.0))["equal"]
    gain = 2 * 0.8 * (0.65 / 1.45 - 0.6 / 1.4)  # scoring is .8 on both sides
    assert outcome["chosen_ahead"] == pytest.approx(gain, abs=1e-4)
    assert outcome["rows_error"] == pytest.approx(gain * np.sqrt(2) / 40 / 0.05, rel=0.25)
    assert outcome["verdict"] == "within noise"


def estimate(values: np.ndarray, rows: float) -> Estimate:
    """Of an objective that seeds give these values, with a standard error of so much by the rows."""
    draws = np.tile([[-rows], [rows]], (500, 3))
    error = np.full(3, values.std(ddof=1) / np.sqrt(len(values)))
    return Estimate(np.full(3, values.mean()), draws, error, len(values) - 1)


@pytest.mark.parametrize(
    ("seeds", "noise", "rows"), [(3, 0.02, 0.0), (3, 0.008, 0.01), (5, 0.015, 0.0), (8, 0.02, 0.004)]
)
def test_power_is_how_often_a_simulated_gain_is_found(seeds: int, noise: float, rows: float) -> None:
    gain, runs = 0.025, 1500
    rng = np.random.default_rng(seeds)
    found = 0
    for _ in range(runs):
        one, other = rng.normal(0, noise, (2, seeds))
        ahead, half, _ = estimate(one + gain + rng.normal(0, rows), rows).ahead(estimate(other, 0.0))
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
    """By the derivative of the harmonic mean 2 s a / (s + a), with a = (accuracy - chance) / (1 - chance)."""
    scoring, right = 0.8, 0.35 / 0.75
    expected = 2 * (right**2 * 0.006 + scoring**2 * 0.024 / 0.75) / (scoring + right) ** 2
    assert paper_gain(Objective(0.25), 0.8, 0.6) == pytest.approx(expected, rel=0.03)


def test_student_intervals_are_scipys_with_known_and_unknown_variances() -> None:
    assert half_interval([(0.04, np.inf)]) == pytest.approx(1.96 * 0.2, rel=1e-3)
    assert half_interval([(0.04, 4)]) == pytest.approx(stats.t.ppf(0.975, 4) * 0.2)
    assert half_interval([(0.04, 4), (0.0, np.inf)]) == pytest.approx(stats.t.ppf(0.975, 4) * 0.2)
    assert half_interval([(0.0, 2)]) == 0.0
    assert np.isnan(half_interval([(np.nan, 0)]))
