"""Correlations, fit and intervals, against hand-worked and scipy's values."""

import numpy as np
import pytest

pytest.importorskip("scipy", reason='needs pip install "qsit-plugin[bench]"')
import scipy.stats

from qsit_plugin.evaluation import statistics
from qsit_plugin.evaluation.statistics import (
    FitError,
    Logistic4,
    bootstrap,
    bootstrap_mean_srcc,
    correlations,
    fit_logistic4,
    srcc,
)
from qsit_plugin.scores import apply_calibration


def noisy(n=400, noise=0.5, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=n)
    return x, x + noise * rng.normal(size=n)


def test_srcc_of_a_monotone_curve_is_one_and_plcc_is_not():
    x = np.linspace(0, 1, 50)
    assert statistics.srcc(x, np.exp(9 * x)) == pytest.approx(1.0)
    assert statistics.plcc(x, np.exp(9 * x)) < 0.8


def test_ties_take_their_mean_rank():
    # ranks 1, 2.5, 2.5, 4 against 1, 2, 3, 4: covariance 4.5, variances 4.5 and 5
    assert statistics.srcc([1, 2, 2, 3], [1, 2, 3, 4]) == pytest.approx(4.5 / np.sqrt(4.5 * 5.0))


def test_kendall_is_tau_b():
    # six pairs: five concordant, one tied in x, none discordant: 5 / sqrt(5 * 6)
    assert statistics.krcc([1, 2, 2, 3], [1, 2, 3, 4]) == pytest.approx(5 / np.sqrt(30))


def test_all_three_agree_with_scipy_on_tied_noise():
    x, y = noisy()
    x, y = np.round(x, 1), np.round(y, 1)
    assert statistics.srcc(x, y) == pytest.approx(scipy.stats.spearmanr(x, y).statistic, abs=1e-12)
    assert statistics.plcc(x, y) == pytest.approx(scipy.stats.pearsonr(x, y).statistic, abs=1e-12)
    assert statistics.krcc(x, y) == pytest.approx(scipy.stats.kendalltau(x, y).statistic, abs=1e-12)


@pytest.mark.parametrize("statistic", [statistics.srcc, statistics.plcc, statistics.krcc, correlations, fit_logistic4])
@pytest.mark.parametrize(
    ("predicted", "target", "message"),
    [
        ([1, 2, 3], [1, 2], "equal length"),
        ([[1, 2, 3]], [[1, 2, 3]], "1-D"),
        ([1, 2], [1, 2], "at least 3"),
        ([1, float("nan"), 3], [1, 2, 3], "predicted holds 1 of 3 values that are not finite"),
        ([1, 2, 3], [1, float("inf"), 3], "target holds 1 of 3"),
        ([2, 2, 2], [1, 2, 3], "predicted is constant"),
        ([1, 2, 3], [4, 4, 4], "target is constant"),
    ],
)
def test_input_without_a_correlation_is_refused(statistic, predicted, target, message):
    with pytest.raises(ValueError, match=message):
        statistic(predicted, target)


def test_the_fit_recovers_the_curve_it_was_given_on_a_narrow_score_range():
    truth = Logistic4((90.0, 10.0, 0.502, 0.003))
    x = np.linspace(0.49, 0.51, 200)
    assert fit_logistic4(x, truth(x)).parameters == pytest.approx(truth.parameters, rel=1e-4)


def test_the_fit_has_the_form_that_a_score_applies():
    x, y = noisy()
    curve = fit_logistic4(x, y)
    entry = {"kind": "logistic4", "parameters": list(curve.parameters), "range": [-100.0, 100.0]}
    assert [apply_calibration(entry, value) for value in x[:20]] == pytest.approx(curve(x[:20]), abs=1e-12)


def test_three_values_cannot_carry_four_parameters():
    with pytest.raises(FitError, match="at least 4"):
        fit_logistic4([1, 2, 3], [1, 2, 3])


def test_raw_and_fitted_figures_stand_under_their_own_names():
    x = np.linspace(-3, 3, 200)
    found = correlations(x, 100 / (1 + np.exp(-4 * x)))
    assert set(found) == {"n", "srcc", "plcc", "krcc", "plcc_logistic4", "rmse_logistic4"}
    assert found["plcc"] < 0.96
    assert found["plcc_logistic4"] == pytest.approx(1.0, abs=1e-6)
    assert found["rmse_logistic4"] == pytest.approx(0.0, abs=1e-3)


def test_a_fit_that_fails_leaves_none_and_the_reason():
    found = correlations([1, 2, 3], [1, 3, 2])
    assert found["plcc_logistic4"] is None and found["rmse_logistic4"] is None
    assert "at least 4" in found["logistic4_error"]
    assert found["plcc"] == pytest.approx(0.5)


def test_a_fit_that_runs_out_of_calls_is_reported(monkeypatch):
    monkeypatch.setattr(statistics, "MAX_CALLS", 5)
    with pytest.raises(FitError, match="did not converge"):
        fit_logistic4(*noisy())


def test_an_interval_holds_the_estimate_and_the_seed_repeats_it():
    x, y = noisy()
    found = bootstrap(x, y, samples=200, seed=3)
    assert found == bootstrap(x, y, samples=200, seed=3)
    assert found != bootstrap(x, y, samples=200, seed=4)
    assert found["srcc"][0] < statistics.srcc(x, y) < found["srcc"][1]


def test_an_interval_is_as_wide_as_theory_says():
    x, y = noisy(n=500)
    r = statistics.plcc(x, y)
    low, high = bootstrap(x, y, statistics=["plcc"], samples=1000)["plcc"]
    assert high - low == pytest.approx(2 * 1.96 * (1 - r * r) / np.sqrt(500), rel=0.2)


def test_copies_of_one_photo_do_not_narrow_an_interval_over_groups():
    x, y = noisy(n=40)
    copies = np.repeat(np.arange(40), 25)
    grouped = bootstrap(x[copies], y[copies], copies, statistics=["plcc"], samples=400)["plcc"]
    by_row = bootstrap(x[copies], y[copies], statistics=["plcc"], samples=400)["plcc"]
    plain = bootstrap(x, y, statistics=["plcc"], samples=400)["plcc"]
    assert grouped[1] - grouped[0] == pytest.approx(plain[1] - plain[0], rel=0.25)
    assert by_row[1] - by_row[0] < 0.35 * (grouped[1] - grouped[0])


def test_group_labels_may_be_names():
    x, y = noisy(n=30)
    numbers = np.arange(30) // 3
    names = [f"I{number:02d}" for number in numbers]
    assert bootstrap(x, y, names, samples=50) == bootstrap(x, y, numbers, samples=50)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"statistics": ["rmse"]}, "no statistic 'rmse'.*srcc, plcc, krcc"),
        ({"groups": [0, 1]}, "one label for each of the 4 rows"),
        ({"groups": [0, 0, 1, 1]}, "at least 3 groups, got 2"),
        ({"samples": 0}, "samples must be at least 1"),
        ({"confidence": 95}, "confidence within"),
    ],
)
def test_wrong_options_of_the_bootstrap_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        bootstrap([1, 2, 3, 4], [1, 2, 4, 3], **options)


def test_too_tied_a_sample_has_no_interval():
    with pytest.raises(ValueError, match="too few or too tied"):
        bootstrap([0, 0, 0, 1], [0, 0, 0, 1], samples=100)


def test_the_interval_of_a_mean_over_parts_is_that_of_its_resamples() -> None:
    """Against the plain loop; a source has a row in every part, and is drawn whole."""
    rng = np.random.default_rng(5)
    x, part, source = rng.normal(size=60), np.repeat(["a", "b", "c"], 20), np.tile(np.arange(20), 3)
    y = x + rng.normal(size=60)
    draws, generator = [], np.random.default_rng(7)
    for _ in range(100):
        rows = np.concatenate([np.flatnonzero(source == i) for i in generator.integers(20, size=20)])
        draws.append(np.mean([srcc(x[rows][part[rows] == p], y[rows][part[rows] == p]) for p in "abc"]))
    found = bootstrap_mean_srcc(x, y, part, source, samples=100, seed=7)
    assert found == pytest.approx(tuple(np.percentile(draws, [2.5, 97.5])))


def test_the_interval_of_a_mean_needs_a_correlation_in_every_part() -> None:
    x = np.arange(12.0)
    with pytest.raises(ValueError, match="of 50 resamples hold equal values only"):
        bootstrap_mean_srcc(x, x, ["a"] * 9 + ["b"] * 3, samples=50)
