"""``qsit bench calibrate`` and ``qsit bench qbench`` in this process: figures, files, exit statuses, errors."""

import json
from dataclasses import replace

import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

pytest.importorskip("scipy", reason='needs pip install "qsit-plugin[bench]"')

import qsit_plugin
from qsit_plugin.cli.bench.calibrate import calibrate
from qsit_plugin.cli.bench.qbench import qbench
from qsit_plugin.protocol import ScoreProfile
from qsit_plugin.weights.fingerprint import fingerprint
from tests.conftest import NANO
from tests.tiny import tiny_checkpoint


def run(command, *arguments):
    app = typer.Typer()
    app.command()(command)
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


@pytest.fixture
def table(tmp_path):
    """300 simulated photos, a third of them in each split, and one without a score."""
    rng = np.random.default_rng(0)
    x = rng.uniform(0.1, 0.9, 300)
    y = 100 / (1 + np.exp(-6 * (x - 0.5))) + rng.normal(0, 4, 300)
    splits = np.repeat(["training", "validation", "test"], 100)
    lines = ["path,score,mos,split,model", "broken.jpg,,50,test,"]
    lines += [f"{i}.jpg,{x[i]},{y[i]},{splits[i]},qsit-nano" for i in range(300)]
    path = tmp_path / "scores.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_calibrate_reports_and_writes_a_profile_of_the_named_model(table, tmp_path):
    out = tmp_path / "qsit.json"
    done = run(calibrate, table, "--scale", "koniq", "--range", 0, 100, "--out", out, "--model", "qsit-nano")
    assert done.exit_code == 0, done.stderr
    assert [line.split()[:2] for line in done.stdout.splitlines()] == [
        ["map", "n"],
        ["raw", "100"],
        ["mean", "100"],
        ["logistic4", "100"],
        ["isotonic", "100"],
    ]
    assert "1 rows without a score or MOS are left out" in done.stderr
    found = ScoreProfile.load(out)
    assert found.scales["koniq"]["kind"] == "logistic4"
    assert found.kind == "mixed"


def test_calibrate_stores_the_kind_that_was_asked_for(table, tmp_path):
    out = tmp_path / "qsit.json"
    assert run(calibrate, table, "--scale", "k", "--kind", "isotonic", "-o", out, "-m", "qsit-nano").exit_code == 0
    assert ScoreProfile.load(out).scales["k"]["kind"] == "isotonic"


def with_fingerprint(table, *made_by):
    """The table with a column of fingerprints, which take turns from row to row."""
    head, broken, *rows = table.read_text(encoding="utf-8").splitlines()
    rows = [f"{row},{made_by[number % len(made_by)]}" for number, row in enumerate(rows)]
    table.write_text("\n".join([f"{head},fingerprint", f"{broken},", *rows]) + "\n", encoding="utf-8")
    return table


def test_a_calibration_holds_for_the_weights_that_made_its_scores_and_is_refused_by_others(table, tmp_path):
    out, other = tmp_path / "qsit.json", tiny_checkpoint(tmp_path / "other", official=False)
    made_by = fingerprint(NANO)
    done = run(calibrate, with_fingerprint(table, made_by), "--scale", "koniq", "-o", out, "-m", "qsit-nano")
    assert done.exit_code == 0, done.stderr
    assert ScoreProfile.load(out).scales["koniq"]["fingerprint"] == made_by
    picture = Image.new("RGB", (64, 64), (90, 120, 200))
    qsit_plugin.load("qsit-nano", device="cpu", profile=out).score(picture).on("koniq")
    profile = replace(ScoreProfile.load(other), scales=ScoreProfile.load(out).scales)
    with pytest.raises(ValueError, match=f"weights {made_by}, this one is of {fingerprint(other)} .*calibrate"):
        qsit_plugin.load(other, device="cpu", profile=profile).score(picture).on("koniq")


def test_calibrate_refuses_scores_of_other_weights_than_the_model_and_scores_of_several(table, tmp_path):
    out = tmp_path / "qsit.json"
    arguments = ("--scale", "koniq", "-o", out, "-m", "qsit-nano")
    done = run(calibrate, with_fingerprint(table, "aaaa00000000"), *arguments)
    assert (done.exit_code, out.exists()) == (2, False)
    assert f"of the weights aaaa00000000, those of qsit-nano are {fingerprint(NANO)}: score again" in done.stderr
    text = table.read_text(encoding="utf-8").replace("aaaa00000000", "bbbb00000000", 5)
    table.write_text(text, encoding="utf-8")
    done = run(calibrate, table, *arguments)
    assert "2 different values of 'fingerprint' (aaaa00000000, bbbb00000000)" in done.stderr


def test_calibrate_writes_nothing_without_out_and_twice_only_with_overwrite(table, tmp_path):
    out = tmp_path / "qsit.json"
    assert run(calibrate, table, "--scale", "koniq").exit_code == 0
    assert not out.exists()
    assert run(calibrate, table, "--scale", "koniq", "-o", out, "-m", "qsit-nano").exit_code == 0
    again = run(calibrate, table, "--scale", "koniq", "-o", out)
    assert again.exit_code == 2
    assert "already has a scale 'koniq'" in again.stderr
    assert run(calibrate, table, "--scale", "koniq", "-o", out, "--overwrite").exit_code == 0


def test_calibrate_does_not_guess_whose_profile_a_new_file_extends(table, tmp_path):
    done = run(calibrate, table, "--scale", "koniq", "--out", tmp_path / "new.json")
    assert done.exit_code == 2
    assert "give the --model that made the scores" in done.stderr


@pytest.mark.parametrize("column", ["scale", "dataset", "model", "profile"])
def test_calibrate_refuses_a_table_of_several_scales(tmp_path, column):
    path = tmp_path / "scores.csv"
    path.write_text(f"score,mos,split,{column}\n.1,1,validation,koniq\n.2,2,test,spaq\n", encoding="utf-8")
    done = run(calibrate, path, "--scale", "koniq")
    assert done.exit_code == 2
    assert f"2 different values of '{column}' (koniq, spaq): scores on different scales are never pooled" in done.stderr


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("score,MOS,split\n.1,1,test\n", [], "has no column 'mos'; its header holds 'score', 'MOS', 'split'"),
        (
            "score,MOS,set\n.1,1,test\n",
            ["--mos-column", "MOS", "--split-column", "set"],
            "no row has split 'validation'",
        ),
        ("score,mos,split\n.1,1,test\ngood,2,test\n", [], "line 3, column 'score': 'good' is not a finite number"),
        ("score,mos,split\n,1,test\n", [], "no row with a score and a MOS"),
        ("", [], "its header holds nothing"),
        ("score,mos,split\n.1,1,test\n", ["--kind", "cubic"], "no calibration of kind 'cubic'"),
    ],
)
def test_calibrate_says_in_one_line_what_is_wrong(tmp_path, text, options, message):
    path = tmp_path / "scores.csv"
    path.write_text(text, encoding="utf-8")
    done = run(calibrate, path, "--scale", "koniq", *options)
    assert done.exit_code == 2
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_calibrate_names_a_file_that_is_not_there(tmp_path):
    done = run(calibrate, tmp_path / "none.csv", "--scale", "koniq")
    assert (done.exit_code, "no such file" in done.stderr) == (2, True)


@pytest.fixture
def logits(tmp_path):
    path = tmp_path / "logits.json"
    rows = [{"img_path": f"{i}.jpg", "gt_score": f"{i} ", "logit_good": i**2, "logit_poor": 0} for i in range(5)]
    path.write_text("".join(json.dumps(row) for row in rows), encoding="utf-8")
    return path


def test_qbench_prints_a3_as_a_table_and_writes_json_by_suffix(logits, tmp_path):
    done = run(qbench, "--logits", logits, "--logits", logits)
    assert done.stdout.splitlines()[0] == "| file | n | SRCC | PLCC |"
    assert done.stdout.count("| logits.json | 5 | 1.000 | 0.9") == 2
    assert run(qbench, "--logits", logits, "--out", tmp_path / "a3.json").exit_code == 0
    found = json.loads((tmp_path / "a3.json").read_text(encoding="utf-8"))
    assert found["task"] == "A3"
    assert found["files"][0]["srcc"] == pytest.approx(1.0)


def test_qbench_runs_a1_on_the_embedded_model_and_reports_a_missing_photo(nano, tmp_path):
    Image.new("RGB", (64, 64), (90, 120, 200)).save(tmp_path / "a.png")
    row = {"question": "Is it blurry?", "candidates": ["Yes", "No"], "correct_ans": "No", "type": 0, "concern": 0}
    rows = [row | {"img_path": "a.png"}, row | {"img_path": "gone.png"}]
    (tmp_path / "q.json").write_text(json.dumps(rows), encoding="utf-8")
    out = tmp_path / "a1.json"
    done = run(qbench, "--questions", tmp_path / "q.json", "--images", tmp_path, "--out", out)
    assert done.exit_code == 1
    assert "gone.png" in done.stderr
    found = json.loads(out.read_text(encoding="utf-8"))
    assert (found["task"], found["model"], found["failed"]) == ("A1", "qsit-nano", 1)
    assert found["fingerprint"] == nano.fingerprint
    assert found["overall"]["n"] == found["types"]["yes-no"]["n"] == 1
    assert found["answers"][0]["text"] and "error" in found["answers"][1]
    table = run(qbench, "--questions", tmp_path / "q.json", "--images", tmp_path, "--rule", "letters", "--limit", 1)
    assert table.exit_code == 0
    assert "| questions | n | chance | letters |" in table.stdout
    assert "| yes-no | 1 | 50.00 | " in table.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "either --logits FILE"),
        (["--logits", "none.json"], "no such file: none.json"),
        (["--logits", "none.json", "--rule", "strict"], "no rule 'strict': give string, letters or both"),
        (["--logits", "none.json", "--out", "x.txt"], "give --format json|markdown"),
        (["--questions", "q.json", "--images", "nowhere"], "needs --images, the folder"),
    ],
)
def test_qbench_says_in_one_line_what_is_wrong(arguments, message):
    done = run(qbench, *arguments)
    assert done.exit_code == 2
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
