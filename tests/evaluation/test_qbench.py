"""Q-Bench's A3: the parser of logit files, and the leaderboard's figures from real ones."""

import json

import numpy as np
import pytest

pytest.importorskip("scipy", reason='needs pip install "qsit-plugin[bench]"')

from qsit_plugin.evaluation.qbench import assessment, read_logits


def row(image="a.jpg", gt=1.0, good=16.0, poor=15.0):
    return {"img_path": image, "gt_score": gt, "logit_good": good, "logit_poor": poor}


def written(path, *rows, between=""):
    path.write_text(between.join(json.dumps(one) for one in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize(("database", "srcc", "plcc"), [("koniq", 0.448, 0.460), ("spaq", 0.563, 0.584)])
def test_the_leaderboards_figures_of_llava_come_out(data, database, srcc, plcc):
    found = assessment(data / "qbench" / f"llava_v1.5_{database}_logits.json")
    assert round(found["srcc"], 3) == srcc
    assert round(found["plcc"], 3) == plcc


@pytest.mark.parametrize("between", ["", "\n", "  \r\n\t"])
def test_objects_one_after_the_other_are_read_whatever_is_between(tmp_path, between):
    path = written(tmp_path / "l.json", row("a.jpg"), row("b.jpg", 2.0), between=between)
    assert read_logits(path).images == ["a.jpg", "b.jpg"]
    assert read_logits(path).mos.tolist() == [1.0, 2.0]


def test_an_array_is_read_too(tmp_path):
    (tmp_path / "l.json").write_text(json.dumps([row("a.jpg"), row("b.jpg")]), encoding="utf-8")
    assert read_logits(tmp_path / "l.json").images == ["a.jpg", "b.jpg"]


def test_a_rating_may_be_text_with_a_blank(tmp_path):
    assert read_logits(written(tmp_path / "l.json", row(gt="2.82 "))).mos.tolist() == [2.82]


def test_the_score_is_the_softmax_at_temperature_100(tmp_path):
    table = read_logits(written(tmp_path / "l.json", row(good=50.0, poor=-50.0), row(good=3.0, poor=3.0)))
    assert table.scores() == pytest.approx([np.e / (np.e + 1), 0.5])


def test_a_broken_file_is_named_with_the_place(tmp_path):
    path = tmp_path / "l.json"
    path.write_text(json.dumps(row()) + '{"img_path": "b.jpg", ', encoding="utf-8")
    with pytest.raises(ValueError, match="l.json is not valid JSON after 1 objects: .* at character"):
        read_logits(path)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "holds no JSON objects"),
        ([[1, 2]], "entry 0 is 1, it must be a JSON object"),
        ([row(), {"img_path": "b.jpg"}], "row 1 has no 'gt_score'; it has img_path"),
        ([row(), row(gt="good")], "row 1 has gt_score 'good', it must be a finite number"),
        ([row(), row(good=float("nan"))], "row 1 has logit_good nan"),
        ([row(), row(poor=None)], "row 1 has logit_poor None"),
    ],
)
def test_a_wrong_row_is_named(tmp_path, rows, message):
    with pytest.raises(ValueError, match=message):
        read_logits(written(tmp_path / "l.json", *rows))


def test_a_repeated_image_is_counted_and_kept(tmp_path):
    rows = [row("a.jpg", 1, 1.0), row("b.jpg", 2, 2.0), row("c.jpg", 3, 4.0), row("c.jpg", 3, 4.0)]
    found = assessment(written(tmp_path / "l.json", *rows))
    assert (found["n"], found["repeated"]) == (4, 1)
