"""Both engines give the same scores, choices and texts on the same weights."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import qsit_plugin as qsit
from tests.engines.pictures import OTHER_MODES, SIZES, picture

CLOSE = 1e-5
QUESTIONS = ("Is it blurry?", "Which distortion is most visible in this image?")

PICTURES = [picture(*size) for size in SIZES] + [picture(*size, mode) for mode, size in OTHER_MODES]
MIXED = [PICTURES[number] for number in (0, 5, 9, 10, 7, 20)]


@pytest.fixture(scope="module", params=["nano_folder", "official_folder"])
def models(request):
    """The same checkpoint on torch and on ONNX Runtime."""
    folder = request.getfixturevalue(request.param)
    return [qsit.load(folder, engine=engine, device="cpu", dtype="float32") for engine in ("torch", "onnx")]


def test_scores_and_distributions_are_equal_on_24_pictures(models):
    assert len(PICTURES) == 24
    expected, found = (model.score(PICTURES) for model in models)
    assert len({round(score.value, 4) for score in expected}) > 12, "pictures must differ, else this proves nothing"
    for image, torch_score, score in zip(PICTURES, expected, found, strict=True):
        assert score.value == pytest.approx(torch_score.value, abs=CLOSE), image
        assert score.probabilities == pytest.approx(torch_score.probabilities, abs=CLOSE), image
        assert score.level_mass == pytest.approx(torch_score.level_mass, abs=CLOSE), image
        assert (torch_score.engine, score.engine) == ("torch", "onnx")


def test_a_look_gives_the_score_of_its_picture(models):
    for image in MIXED:
        assert models[1].encode(image).score().value == pytest.approx(models[1].score(image).value, abs=CLOSE)


def test_choices_and_attributes_are_equal(models):
    options = ["blur", "noise", "compression artifacts"]
    for image in MIXED:
        looks = [model.encode(image) for model in models]
        expected, found = (look.choose(QUESTIONS[1], options) for look in looks)
        assert found == pytest.approx(expected, abs=CLOSE)
    expected, found = (look.attributes() for look in looks)
    assert found == pytest.approx(expected, abs=CLOSE)


def test_greedy_texts_are_equal_alone_and_in_a_list_of_mixed_sizes(models):
    expected, found = (model.explain(MIXED, max_new_tokens=24) for model in models)
    alone = models[1].explain(MIXED[2], max_new_tokens=24)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours == theirs
    assert alone == found[2]
    assert any(answer.text for answer in found)


def test_several_questions_about_one_look_are_answered_as_on_torch(models):
    for question in QUESTIONS:
        expected, found = (model.encode(MIXED[3]).ask(question, max_new_tokens=16) for model in models)
        assert found == expected


def test_comparisons_ranks_and_quality_maps_are_equal(models):
    pair = PICTURES[9], PICTURES[11]
    expected, found = (model.compare(*pair).probability_a_better for model in models)
    assert found == pytest.approx(expected, abs=1e-3)  # spread over a normal distribution
    orders = [[index for index, _ in model.rank(MIXED)] for model in models]
    assert orders[0] == orders[1]
    maps = [model.quality_map(PICTURES[9], window=100) for model in models]
    assert np.abs(maps[0] - maps[1]).max() <= CLOSE


def test_streams_are_equal_piece_by_piece(models):
    expected, found = (list(model.stream(MIXED[4], max_new_tokens=12)) for model in models)
    assert found == expected
    assert len(found) > 4


def test_limits_on_tiles_give_the_limited_scores_of_torch(request):
    folder = request.getfixturevalue("nano_folder")
    expected, found = (
        qsit.load(folder, engine=engine, device="cpu", max_tiles=4).score(PICTURES[18]) for engine in ("torch", "onnx")
    )
    assert found.value == pytest.approx(expected.value, abs=CLOSE)
    assert found.mode == expected.mode == "at most 4 tiles"


def test_no_picture_is_like_another():
    assert not any(a.size == b.size and a.mode == b.mode for a, b in itertools.combinations(PICTURES, 2))
