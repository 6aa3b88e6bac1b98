"""Scores: value, spread, scales, comparison, and the record that every interface writes."""

import json
import math
from dataclasses import replace

import pytest

from qsit_plugin.protocol import LEVELS
from qsit_plugin.scores import COLUMNS, Comparison, Score, flat, score_row

WEIGHTS = (1.0, 0.75, 0.5, 0.25, 0.0)
ABOUT = {"scope": "human ratings", "model": "m", "dtype": "float32"}


def score(*logits, **more):
    return Score.from_logits(logits, WEIGHTS, level_mass=0.9, **ABOUT, **more)


def test_equal_logits_give_the_middle_with_full_entropy():
    even = score(2.0, 2.0, 2.0, 2.0, 2.0)
    assert even.value == pytest.approx(0.5)
    assert even.entropy == pytest.approx(math.log(5))
    assert even.std == pytest.approx(math.sqrt(0.125))


def test_one_sure_level_has_no_spread():
    sure = score(0.0, 0.0, 0.0, 900.0, 0.0)
    assert (sure.value, sure.level, sure.std, sure.entropy) == (0.25, "poor", 0.0, 0.0)


def test_probabilities_run_from_excellent_to_bad_and_sum_to_one():
    made = score(5.0, 4.0, 3.0, 2.0, 1.0)
    assert tuple(made.probabilities) == LEVELS
    assert sum(made.probabilities.values()) == pytest.approx(1.0)
    assert made.probabilities["excellent"] > made.probabilities["bad"]


@pytest.mark.parametrize(("scale", "expected"), [("0-1", 0.5), ("0-5", 2.5), ("1-5", 3.0), ("0-100", 50.0)])
def test_plain_scales_stretch_the_value(scale, expected):
    assert score(1.0, 1.0, 1.0, 1.0, 1.0).on(scale) == pytest.approx(expected)


def test_a_scale_without_calibration_raises_and_lists_what_there_is():
    with pytest.raises(ValueError, match="no calibration for scale 'koniq'.*0-100"):
        score(1.0, 1.0, 1.0, 1.0, 1.0).on("koniq")


def test_a_stored_logistic_calibration_is_applied():
    scales = {"koniq": {"kind": "logistic4", "parameters": [100.0, 0.0, 0.5, 0.1], "range": [0, 100]}}
    assert score(1.0, 1.0, 1.0, 1.0, 1.0, scales=scales).on("koniq") == pytest.approx(50.0)


def test_a_stored_isotonic_calibration_interpolates_and_stays_in_range():
    scales = {"koniq": {"kind": "isotonic", "parameters": [[0.2, 0.6], [10.0, 30.0]], "range": [12, 100]}}
    assert score(1.0, 1.0, 1.0, 1.0, 1.0, scales=scales).on("koniq") == pytest.approx(25.0)
    assert score(0.0, 0.0, 0.0, 0.0, 99.0, scales=scales).on("koniq") == pytest.approx(12.0)


def test_a_calibration_of_other_weights_is_refused_with_both_and_the_cure():
    entry = {
        "kind": "logistic4",
        "parameters": [100.0, 0.0, 0.5, 0.1],
        "range": [0, 100],
        "fingerprint": "aaaa00000000",
    }
    made = score(1.0, 1.0, 1.0, 1.0, 1.0, scales={"koniq": entry}, fingerprint="bbbb00000000")
    with pytest.raises(ValueError, match="weights aaaa00000000, this one is of bbbb00000000.*qsit bench calibrate"):
        made.on("koniq")
    assert replace(made, fingerprint="aaaa00000000").on("koniq") == pytest.approx(50.0)


def test_a_score_made_as_before_has_no_fingerprint_and_the_kind_of_its_scope():
    made = score(1.0, 1.0, 1.0, 1.0, 1.0)
    assert (made.fingerprint, made.scope_kind) == ("", "ratings")
    assert replace(made, scope="my raters", scope_kind="").scope_kind == "other"


def test_the_better_image_is_more_probably_better():
    good, poor = score(3.0, 2.0, 0.0, 0.0, 0.0), score(0.0, 0.0, 0.0, 2.0, 3.0)
    assert Comparison(good, poor).probability_a_better > 0.9
    assert Comparison(good, good).probability_a_better == 0.5


def test_two_sure_scores_compare_without_division_by_zero():
    assert Comparison(score(900.0, 0, 0, 0, 0), score(0, 0, 0, 0, 900.0)).probability_a_better == 1.0


def test_a_record_calls_the_number_score_and_for_one_release_value_too():
    made = score(5.0, 4.0, 3.0, 2.0, 1.0)
    record = json.loads(json.dumps(made.to_dict(), allow_nan=False))
    assert record["score"] == record["value"] == made.value
    assert list(record)[:2] == ["score", "level"]


def test_a_row_is_the_record_with_path_and_profile_but_not_the_old_name():
    record = score(5.0, 4.0, 3.0, 2.0, 1.0).to_dict()
    row = score_row("a.png", record, "official")
    assert row == {"path": "a.png", "profile": "official"} | {name: record[name] for name in row if name in record}
    assert not {"value", "entropy"} & set(row)
    assert tuple(flat(row)) == COLUMNS[:-1], "a csv has a column for everything in a row, in its order"
    assert "profile" not in score_row("a.png", record)
