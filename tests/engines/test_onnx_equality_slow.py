"""Both engines on 200 pictures of 50 sizes: scores and choices, and greedy texts up to ties. The long form of
test_onnx_equality.py, some twenty minutes: ``pytest -m slow tests/engines``."""

from __future__ import annotations

from itertools import chain
from typing import Any

import pytest

import qsit_plugin as qsit
from qsit_plugin.protocol import EXPLAIN
from tests.engines.pictures import MORE_SIZES, SIZES, four_pictures

pytestmark = pytest.mark.slow

CLOSE = 1e-5
TIE = 1e-4
"""Difference of two tokens' logits up to which either is the greedy one."""
TOKENS = 16
QUESTION, OPTIONS = "Which distortion is most visible in this image?", ["blur", "noise", "compression artifacts"]
ALL_SIZES = SIZES + MORE_SIZES


@pytest.fixture(scope="module", params=["nano_folder", "official_folder"])
def models(request):
    """The same checkpoint on torch and on ONNX Runtime."""
    folder = request.getfixturevalue(request.param)
    return [qsit.load(folder, engine=engine, device="cpu", dtype="float32") for engine in ("torch", "onnx")]


def test_there_are_200_pictures_of_50_sizes_that_differ():
    assert len(set(ALL_SIZES)) == len(ALL_SIZES) == 50
    modes = [image.mode for number in range(50) for image in four_pictures(number)]
    assert len(modes) == 200
    assert {mode: modes.count(mode) for mode in ("RGB", "L", "RGBA", "P", "LA", "CMYK")} == {
        "RGB": 100, "L": 17, "RGBA": 17, "P": 17, "LA": 16, "CMYK": 16,
    }  # fmt: skip
    assert sum(mode.startswith("I") for mode in modes) == 17, "16-bit grey"


@pytest.mark.parametrize("number", range(50), ids=["x".join(map(str, size)) for size in ALL_SIZES])
def test_scores_choices_and_greedy_texts_are_equal(models, number):
    images = four_pictures(number)
    looks = [[model.encode(image) for image in images] for model in models]
    expected, found = (model.score(images) for model in models)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.value == pytest.approx(theirs.value, abs=CLOSE)
        assert ours.probabilities == pytest.approx(theirs.probabilities, abs=CLOSE)
        assert ours.level_mass == pytest.approx(theirs.level_mass, abs=CLOSE)
    for theirs, ours in zip(*looks, strict=True):
        assert ours.score().value == pytest.approx(theirs.score().value, abs=CLOSE)
        assert ours.choose(QUESTION, OPTIONS) == pytest.approx(theirs.choose(QUESTION, OPTIONS), abs=CLOSE)
    answers = [model.explain(own, max_new_tokens=TOKENS) for model, own in zip(models, looks, strict=True)]
    for place, (theirs, ours) in enumerate(zip(*answers, strict=True)):
        if ours.text != theirs.text:
            gap = gap_where_they_part(models, [own[place] for own in looks])
            assert gap <= TIE, (
                f"{theirs.text!r} on torch, {ours.text!r} on ONNX Runtime: the tokens differ by {gap:.2g}"
            )


def gap_where_they_part(models: list[Any], looks: list[Any]) -> float:
    """Largest difference, on either engine, between the logits of the two tokens at which greedy answers part."""
    prompt = models[0].prompt(EXPLAIN)
    written: list[int] = []
    prefixes = [look.prefix(prompt.before, model.engine) for model, look in zip(models, looks, strict=True)]
    for _ in range(TOKENS):
        after = [*prompt.after, *written]
        tokens = [
            model.engine.decoder([prefix], after).step(None)[0][0]
            for model, prefix in zip(models, prefixes, strict=True)
        ]
        if tokens[0] != tokens[1]:
            rows = [
                model.engine.read_after(prefix, after, tokens).chosen[0]
                for model, prefix in zip(models, prefixes, strict=True)
            ]
            return max(abs(float(row[0] - row[1])) for row in rows)
        written.append(tokens[0])
    raise AssertionError("the texts differ, but not the tokens")


def test_the_pictures_get_different_scores(models):
    """Else the comparison would prove nothing."""
    pictures = chain.from_iterable(four_pictures(number) for number in range(0, 20))
    values = [round(score.value, 4) for score in models[1].score(list(pictures))]
    assert len(set(values)) > 50
