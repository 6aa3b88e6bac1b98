"""Maps from score to MOS: fitted on validation rows, judged on test rows, kept in a profile, applied by a Score."""

import json
import sys

import numpy as np
import pytest

pytest.importorskip("scipy", reason='needs pip install "qsit-plugin[bench]"')

from qsit_plugin.evaluation import calibration
from qsit_plugin.evaluation.calibration import CalibrationError, apply_scale, calibrate, fit_scale, save_scale
from qsit_plugin.evaluation.statistics import FitError, Logistic4
from qsit_plugin.protocol import OFFICIAL, TRAINING_CONSISTENT, ScoreProfile

CURVE = Logistic4((90.0, 10.0, 0.6, 0.1))
ENTRY = {"kind": "logistic4", "parameters": [90.0, 10.0, 0.6, 0.1], "range": [0.0, 100.0]}


def rated(n=600, noise=4.0, seed=0):
    """Scores, and the MOS of people who see them through a known curve and err a little."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(0.05, 0.95, n)
    return x, CURVE(x) + noise * rng.normal(size=n)


def test_the_logistic_fit_recovers_the_curve_of_simulated_ratings():
    entry = fit_scale(*rated(noise=0.0), kind="logistic4", range=(0, 100))
    assert entry["parameters"] == pytest.approx(CURVE.parameters, rel=1e-3)
    assert (entry["kind"], entry["range"]) == ("logistic4", [0.0, 100.0])


@pytest.mark.parametrize("kind", calibration.KINDS)
def test_a_map_never_falls_and_stays_in_its_range(kind):
    entry = fit_scale(*rated(noise=15.0), kind=kind, range=(20, 80))
    mapped = apply_scale(entry, np.linspace(0, 1, 500))
    assert (np.diff(mapped) >= 0).all()
    assert mapped.min() >= 20 and mapped.max() <= 80


def test_without_a_range_the_ratings_own_ends_are_taken():
    x, y = rated()
    assert fit_scale(x, y)["range"] == [y.min(), y.max()]


def test_thinning_the_knots_leaves_the_isotonic_map_as_it_is():
    from scipy.optimize import isotonic_regression

    x, y = rated(n=1000)
    entry = fit_scale(x, y, kind="isotonic", range=(-100, 200))
    order = np.argsort(x)
    full = isotonic_regression(y[order]).x
    grid = np.linspace(0, 1, 3001)
    assert apply_scale(entry, grid) == pytest.approx(np.interp(grid, x[order], full), abs=1e-9)
    assert len(entry["parameters"][0]) < 200


def test_rows_of_one_score_become_one_knot_at_their_mean():
    entry = fit_scale([0.2, 0.2, 0.8, 0.8], [10, 30, 50, 90], kind="isotonic")
    assert entry["parameters"] == [[0.2, 0.8], [20.0, 70.0]]


def test_an_entry_survives_json(tmp_path):
    for kind in calibration.KINDS:
        entry = fit_scale(*rated(), kind=kind)
        assert json.loads(json.dumps(entry)) == entry


@pytest.mark.parametrize(
    ("scores", "mos", "options", "message"),
    [
        ([0.1, 0.5, 0.9], [3, 2, 1], {}, "the score falls where the MOS rises .*negate them first"),
        ([10, 50, 90], [1, 2, 3], {}, r"scores must be values in \[0, 1\].*got 10 to 90"),
        ([0.1, 0.5, 0.9], [1, 2, 3], {"kind": "linear"}, "no calibration of kind 'linear': give one of logistic4, iso"),
        ([0.1, 0.5, 0.9], [1, 2, 3], {"kind": "isotonic", "range": (3, 1)}, "low below high"),
        ([0.1, 0.5], [1, 2, 3], {}, "equal length"),
    ],
)
def test_what_cannot_be_calibrated_is_refused(scores, mos, options, message):
    with pytest.raises(ValueError, match=message):
        fit_scale(scores, mos, **options)


def test_a_logistic_of_three_rows_is_refused():
    with pytest.raises(FitError, match="at least 4"):
        fit_scale([0.1, 0.5, 0.9], [1, 2, 3])


def test_only_validation_rows_are_fitted_and_only_test_rows_judged():
    x, y = rated(n=900)
    split = np.repeat(["training", "validation", "test"], 300)
    entries, report = calibrate(x, y, split, range=(0, 100))
    poisoned = np.where(split == "validation", y, 0.0)  # other rows must not touch the map
    assert calibrate(x, poisoned + (split == "test") * x, split, range=(0, 100))[0] == entries
    assert {name: figures["n"] for name, figures in report.items()} == dict.fromkeys(report, 300)
    assert entries["logistic4"] == fit_scale(x[300:600], y[300:600], range=(0, 100))


def test_a_logistic_map_gains_plcc_and_error_and_keeps_srcc():
    x, y = rated(n=900)
    _, report = calibrate(x, y, np.repeat(["training", "validation", "test"], 300), range=(0, 100))
    assert report["logistic4"]["srcc"] == pytest.approx(report["raw"]["srcc"], abs=1e-12)
    assert report["logistic4"]["plcc"] > report["raw"]["plcc"]
    assert report["logistic4"]["rmse"] == pytest.approx(4.0, rel=0.15)
    assert report["logistic4"]["rmse"] < report["raw"]["rmse"] < report["mean"]["rmse"]


def test_a_table_without_validation_or_test_rows_is_refused():
    x, y = rated(n=20)
    with pytest.raises(CalibrationError, match="no row has split 'validation'; splits found: test"):
        calibrate(x, y, ["test"] * 20)
    with pytest.raises(CalibrationError, match="no row has split 'test'; splits found: training, validation"):
        calibrate(x, y, ["training", "validation"] * 10)


def test_a_scale_is_saved_beside_the_checkpoints_own_profile(tmp_path):
    TRAINING_CONSISTENT.save(tmp_path)
    assert save_scale(tmp_path, "koniq", ENTRY) == tmp_path / "qsit.json"
    found = ScoreProfile.load(tmp_path)
    assert found.scales == {"koniq": ENTRY}
    assert found.question == TRAINING_CONSISTENT.question


def test_a_folder_without_a_profile_gets_the_official_one_with_the_scale(tmp_path):
    save_scale(tmp_path, "koniq", ENTRY)
    save_scale(tmp_path, "spaq", ENTRY)
    found = ScoreProfile.load(tmp_path)
    assert list(found.scales) == ["koniq", "spaq"]
    assert found.level_token_ids == OFFICIAL.level_token_ids


def test_a_scale_is_not_overwritten_without_overwrite(tmp_path):
    other = {**ENTRY, "range": [1.0, 5.0]}
    save_scale(tmp_path, "koniq", ENTRY)
    with pytest.raises(CalibrationError, match="already has a scale 'koniq'"):
        save_scale(tmp_path, "koniq", other)
    assert ScoreProfile.load(tmp_path).scales["koniq"] == ENTRY
    save_scale(tmp_path, "koniq", other, overwrite=True)
    assert ScoreProfile.load(tmp_path).scales["koniq"] == other


def test_a_falling_map_is_not_saved(tmp_path):
    with pytest.raises(CalibrationError, match="must rise, that is, b1 above b2"):
        save_scale(tmp_path, "koniq", {**ENTRY, "parameters": [10.0, 90.0, 0.6, 0.1]})
    assert not (tmp_path / "qsit.json").exists()


def test_a_name_that_a_plain_stretch_has_is_refused(tmp_path):
    with pytest.raises(CalibrationError, match="'0-100' has the name of a plain stretch"):
        save_scale(tmp_path, "0-100", ENTRY)


def test_a_scale_is_not_put_into_a_profile_that_reads_scores_otherwise(tmp_path):
    file = save_scale(tmp_path / "mine.json", "koniq", ENTRY, base=TRAINING_CONSISTENT)
    with pytest.raises(CalibrationError, match="question, answer_prefix, level_words, level_token_ids differ"):
        save_scale(file, "spaq", ENTRY, base=OFFICIAL)


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege on Windows")
def test_a_link_into_a_shared_cache_is_not_written_through(tmp_path):
    blob = OFFICIAL.save(tmp_path / "blob")
    before = blob.read_bytes()
    (tmp_path / "snapshot").mkdir()
    (tmp_path / "snapshot" / "qsit.json").symlink_to(blob)
    with pytest.raises(CalibrationError, match="a JSON file of your own"):
        save_scale(tmp_path / "snapshot", "koniq", ENTRY)
    assert blob.read_bytes() == before


def test_a_missing_folder_is_an_error_of_one_line(tmp_path):
    with pytest.raises(CalibrationError, match="the folder .*nowhere does not exist"):
        save_scale(tmp_path / "nowhere" / "qsit.json", "koniq", ENTRY)


def test_the_embedded_model_scores_on_a_scale_from_a_file(nano, tmp_path):
    import qsit_plugin

    path = save_scale(tmp_path / "mine.json", "koniq", ENTRY, base=nano.profile)
    picture = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    score = qsit_plugin.load("qsit-nano", profile=path).score(picture)
    assert score.value == pytest.approx(nano.score(picture).value)
    assert score.on("koniq") == pytest.approx(float(CURVE(score.value)), abs=1e-9)


def test_real_scores_of_llava_on_koniq_gain_from_the_validation_rows(data):
    from qsit_plugin.evaluation.datasets.published import read_ratings
    from qsit_plugin.evaluation.qbench import read_logits

    rows = read_ratings("koniq", data / "annotations" / "koniq10k_votes.csv", split="all").rows
    table = read_logits(data / "qbench" / "llava_v1.5_koniq_logits.json")
    score = dict(zip(table.images, table.scores(), strict=True))
    _, report = calibrate(
        [score[row.image] for row in rows], [row.mos for row in rows], [row.split for row in rows], range=(0, 100)
    )
    assert report["raw"]["n"] == 2015
    assert report["logistic4"]["srcc"] == pytest.approx(report["raw"]["srcc"], abs=1e-12)
    assert report["logistic4"]["plcc"] > report["raw"]["plcc"]
    assert report["logistic4"]["rmse"] < report["mean"]["rmse"] < report["raw"]["rmse"]


def test_a_range_that_does_not_hold_the_ratings_is_refused():
    x, y = rated(n=60)
    with pytest.raises(CalibrationError, match="ratings are outside the range 0 to 2, they go from"):
        calibrate(x, y, np.repeat(["validation", "test"], 30), range=(0, 2))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("score,mos,mos,split\n.5,1,2,test\n", "several columns called 'mos'"),
        ("score,mos,split\n0,5,1,test\n", "has 4 cells, the header 3"),
        ('score,mos,split,note\n.5,1,test,"oops\n.6,2,test,\n', "is a quote not closed"),
    ],
)
def test_a_table_of_scores_that_could_be_read_in_two_ways_is_refused(tmp_path, text, message):
    from qsit_plugin.evaluation.rated_scores import read_rated_scores

    path = tmp_path / "scores.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        read_rated_scores(path)


def test_a_table_of_scores_may_have_semicolons_and_decimal_commas(tmp_path):
    from qsit_plugin.evaluation.rated_scores import read_rated_scores

    path = tmp_path / "scores.csv"
    path.write_text("score;mos;split\n0,5;61,5;test\n;70;test\n", encoding="utf-8")
    found = read_rated_scores(path)
    assert (found.scores.tolist(), found.mos.tolist(), found.split, found.left_out) == ([0.5], [61.5], ["test"], 1)
