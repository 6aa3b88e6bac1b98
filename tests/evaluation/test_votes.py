"""Brier score and calibration error on simulated levels whose true answer is known, and KonIQ's own votes."""

import numpy as np
import pytest

from qsit_plugin.evaluation.datasets.published import read_ratings
from qsit_plugin.evaluation.datasets.votes import brier, expected_calibration_error


def simulated(n=4000, seed=0):
    return np.random.default_rng(seed).dirichlet([0.6, 2.0, 3.0, 1.5, 0.4], size=n)


def test_brier_is_the_mean_squared_distance():
    assert brier([[1, 0, 0, 0, 0], [0, 1, 0, 0, 0]], [[0, 1, 0, 0, 0], [0, 1, 0, 0, 0]]) == pytest.approx(1.0)


def test_shares_equal_to_the_probabilities_are_perfect():
    p = simulated()
    assert brier(p, p) == 0.0
    assert expected_calibration_error(p, p) == 0.0


def test_one_vote_drawn_from_the_probabilities_is_nearly_calibrated_though_its_brier_score_is_large():
    rng, p = np.random.default_rng(1), simulated(20_000)
    votes = np.array([rng.multinomial(1, one) for one in p])
    # 0.8 standard errors of a bin's mean: at most 0.8 * sqrt(.25 / 2000) = .009
    assert expected_calibration_error(p, votes) < 0.009
    assert brier(p, votes) == pytest.approx(np.mean(1 - (p**2).sum(1)), rel=0.02)


def test_mass_moved_from_one_level_to_another_is_the_error():
    p = simulated()
    shifted = p * 0.8
    shifted[:, 0] += 0.2  # 80 % of the truth and 20 % on excellent, whatever the image
    gaps = [np.mean(np.abs(p[:, level] - shifted[:, level])) for level in range(5)]
    assert expected_calibration_error(shifted, p) == pytest.approx(np.mean(gaps), rel=1e-6)
    assert brier(shifted, p) == pytest.approx(np.mean(((p - shifted) ** 2).sum(1)))


def test_the_error_of_a_constant_answer_is_its_gap_to_the_mean():
    p = np.tile([0.5, 0.5, 0.0, 0.0, 0.0], (100, 1))
    q = np.tile([0.3, 0.7, 0.0, 0.0, 0.0], (100, 1))
    assert expected_calibration_error(p, q) == pytest.approx((0.2 + 0.2) / 5)


def test_equal_predictions_are_never_parted():
    # sorted rows would part the ten equal predictions into bins of shares 0 and 1, each with a gap of one half
    p = np.tile([0.5, 0.5, 0.0, 0.0, 0.0], (10, 1))
    q = np.array([[1, 0, 0, 0, 0], [0, 1, 0, 0, 0]] * 5)
    assert expected_calibration_error(p, q, bins=2) == pytest.approx(0.0)


def test_over_and_under_confidence_do_not_cancel_between_bins():
    p = np.array([[0.9, 0.1, 0, 0, 0]] * 10 + [[0.1, 0.9, 0, 0, 0]] * 10)
    q = np.array([[0.7, 0.3, 0, 0, 0]] * 10 + [[0.3, 0.7, 0, 0, 0]] * 10)
    assert expected_calibration_error(p, q) == pytest.approx((0.2 + 0.2) / 5)
    assert expected_calibration_error(p, q, bins=1) == pytest.approx(0.0)


@pytest.mark.parametrize(
    ("probabilities", "shares", "message"),
    [
        ([[0.5, 0.5]], [[0.5, 0.5]], r"shape \(N, 5\), excellent to bad; got \(1, 2\)"),
        ([[1, 0, 0, 0, 0]] * 2, [[1, 0, 0, 0, 0]], "2 rows of probabilities, 1 of vote shares"),
        ([[1, 0, 0, 0, 0]], [[1, 1, 0, 0, 0]], "vote shares must be at least 0 and sum to 1; row 0"),
        ([[1.5, -0.5, 0, 0, 0]], [[1, 0, 0, 0, 0]], "probabilities must be at least 0"),
        ([[float("nan")] * 5], [[1, 0, 0, 0, 0]], "probabilities must be"),
    ],
)
def test_what_is_no_distribution_is_refused(probabilities, shares, message):
    for measure in (brier, expected_calibration_error):
        with pytest.raises(ValueError, match=message):
            measure(probabilities, shares)


def test_the_mean_votes_of_koniq_are_calibrated_but_know_no_image(data):
    rows = read_ratings("koniq", data / "annotations" / "koniq10k_votes.csv", split="all").rows
    shares = np.array([row.votes for row in rows])
    constant = np.tile(shares.mean(axis=0), (len(shares), 1))
    assert expected_calibration_error(constant, shares) == pytest.approx(0.0, abs=1e-9)
    assert brier(constant, shares) == pytest.approx(shares.var(axis=0).sum())
