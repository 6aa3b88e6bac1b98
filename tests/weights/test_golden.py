"""Golden values: what is published, what lies beside a checkpoint, and the verdict."""

import json
import math

import pytest

from qsit_plugin.weights import WeightsError
from qsit_plugin.weights.golden import FILE_NAME, PUBLISHED, Golden, goldens, judge, read_goldens

ENTRY = {"image": None, "logits": [1.0, 2.0, 3.0, 4.0, 5.0], "score": 0.1}


def write(folder, content):
    (folder / FILE_NAME).write_text(json.dumps(content), encoding="utf-8")
    return folder


def test_the_published_score_of_qsit_mini_follows_from_its_published_logits():
    golden = PUBLISHED["qsit-mini"]
    assert golden.logits == (11.953125, 9.390625, 11.0390625, 12.1015625, 15.3984375)
    odds = [math.exp(value) for value in golden.logits]
    score = sum(w * p for w, p in zip((1, 0.75, 0.5, 0.25, 0), odds, strict=True)) / sum(odds)
    assert golden.score == pytest.approx(0.045549712192942585, abs=1e-15)
    assert score == pytest.approx(golden.score, abs=1e-12)


def test_the_published_values_are_those_of_the_collected_fixtures(data):
    known = json.loads((data / "official" / "fixtures.json").read_text(encoding="utf-8"))["golden_44009500"]
    assert list(PUBLISHED["qsit-mini"].logits) == known["logits_E_G_F_P_B"]
    assert PUBLISHED["qsit-mini"].score == known["score"]


def test_a_checkpoint_without_goldens_has_none(tmp_path):
    assert goldens(tmp_path, "someone/model") == []


def test_published_and_own_goldens_are_both_given(tmp_path):
    (tmp_path / "photo.png").write_bytes(b"x")
    found = goldens(write(tmp_path, {**ENTRY, "image": "photo.png"}), "qsit-mini")
    assert found[0] is PUBLISHED["qsit-mini"]
    assert found[1] == Golden(image=tmp_path / "photo.png", logits=(1, 2, 3, 4, 5), score=0.1)


def test_a_file_may_hold_several_goldens(tmp_path):
    write(tmp_path, {"goldens": [ENTRY, {**ENTRY, "score": 0.2, "note": "second"}]})
    assert [(golden.score, golden.note) for golden in read_goldens(tmp_path / FILE_NAME)] == [
        (0.1, ""),
        (0.2, "second"),
    ]


@pytest.mark.parametrize(
    "broken",
    [
        {"image": None, "score": 0.1},
        {**ENTRY, "logits": [1, 2, 3]},
        {**ENTRY, "logits": ["a"] * 5},
        {**ENTRY, "logits": [float("nan")] * 5},
        {**ENTRY, "score": 1.5},
        {"goldens": ["text"]},
    ],
)
def test_a_malformed_golden_file_is_an_error(tmp_path, broken):
    with pytest.raises(WeightsError, match="golden"):
        goldens(write(tmp_path, broken))


def test_a_golden_image_that_is_not_beside_the_file_is_an_error(tmp_path):
    with pytest.raises(WeightsError, match="lost.png, which is not beside it"):
        goldens(write(tmp_path, {**ENTRY, "image": "lost.png"}))


@pytest.mark.parametrize(
    ("score", "verdict"),
    [(0.5, "pass"), (0.5045, "pass"), (0.4955, "pass"), (0.506, "drift"), (0.46, "drift"), (0.56, "broken")],
)
def test_the_verdict_follows_the_difference_of_the_scores(score, verdict):
    assert judge(score, Golden(image=None, logits=(0, 0, 0, 0, 0), score=0.5)) == verdict


def test_a_score_that_is_not_a_number_is_broken():
    assert judge(float("nan"), PUBLISHED["qsit-mini"]) == "broken"


def test_the_score_that_faulty_transformers_versions_gave_is_broken():
    assert judge(0.6967, PUBLISHED["qsit-mini"]) == "broken"
