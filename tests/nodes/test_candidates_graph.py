"""First Good Enough, Compare and Attributes, run by a host's executor."""

import pytest
import torch

from qsit_plugin.nodes.candidates import chosen, next_wanted
from tests.nodes.graphs import arrived, graph
from tests.nodes.helpers import RAN, batch, give, keep, photo


def test_the_first_that_is_good_enough_is_taken_even_before_a_better_one():
    assert chosen([0.2, 0.6, 0.9], 0.5) == (1, True)
    assert chosen([0.2, 0.4, 0.4], 0.5) == (1, False)


def test_another_candidate_is_wanted_only_until_one_is_good_enough():
    assert next_wanted([0.2], ["candidate_2", "candidate_3"], 0.5) == "candidate_2"
    assert next_wanted([0.5], ["candidate_2"], 0.5) is None
    assert next_wanted([0.2], [], 0.5) is None


def value(nano, images):
    return nano.score((images[0].numpy() * 255).round().astype("uint8")).value


@pytest.fixture(scope="module")
def four(nano):
    """Four candidates, worst first, and their scores."""
    pictures = [batch(photo(seed, blur=blur)) for seed, blur in ((0, True), (0, False), (1, True), (1, False))]
    pictures.sort(key=lambda images: value(nano, images))
    return pictures, [value(nano, images) for images in pictures]


def first_good(pictures, threshold, if_none="best"):
    prompt = graph(pictures[0])
    del prompt["score"], prompt["images"]
    inputs = {"model": ["model", 0], "threshold": threshold, "if_none": if_none}
    for number, images in enumerate(pictures, 1):
        prompt[f"c{number}"] = give(f"c{number}", images)
        inputs[f"candidate_{number}"] = [f"c{number}", 0]
    prompt["first"] = {"class_type": "QSiT_FirstGoodEnough", "inputs": inputs}
    names = ("image_out", "score", "tries", "is_pass", "scores", "report")
    return prompt | {f"k{i}": keep(["first", i], name) for i, name in enumerate(names)}


@pytest.mark.parametrize("needed", [1, 3, 4])
def test_candidates_after_the_first_good_one_are_never_made(host, four, needed):
    pictures, scores = four
    result = host.run(first_good(pictures, (scores[needed - 2] + scores[needed - 1]) / 2 if needed > 1 else 0.0))
    assert result.success and not result.errors
    assert [f"c{i}" for i in range(1, needed + 1)] == RAN
    assert torch.equal(arrived("image_out")[0], pictures[needed - 1])
    assert (arrived("tries"), arrived("is_pass")) == ([needed], [True])
    assert arrived("score") == [pytest.approx(scores[needed - 1], abs=1e-5)]


def test_candidates_that_an_earlier_run_made_do_not_count_as_tried(host, four):
    """ComfyUI hands over what its cache holds, asked for or not."""
    pictures, scores = four
    host.run(first_good(pictures, 1.0))
    host.run(first_good(pictures, (scores[0] + scores[1]) / 2))
    assert (arrived("tries"), arrived("is_pass")) == ([4, 2], [False, True])
    assert arrived("report")[1].splitlines()[-1] == "taken: candidate_2"


def test_each_candidate_is_looked_at_once(host, four, monkeypatch):
    from qsit_plugin.nodes.handle import Handle

    looked = []
    original = Handle.scores
    monkeypatch.setattr(Handle, "scores", lambda self, p: looked.append(len(p)) or original(self, p))
    host.run(first_good(four[0], 1.0))
    assert looked == [1, 1, 1, 1]


@pytest.mark.parametrize("if_none", ["best", "stop silently", "error"])
def test_when_none_is_good_enough_the_user_decides(host, four, if_none):
    pictures, _ = four
    result = host.run(first_good(pictures, 1.0, if_none))
    assert len(RAN) == 4
    assert len(arrived("image_out")) == (1 if if_none == "best" else 0)
    assert arrived("is_pass") == ([] if if_none == "error" else [False])
    assert [e["node_type"] for e in result.errors] == (["QSiT_FirstGoodEnough"] if if_none == "error" else [])
    if if_none == "best":
        assert torch.equal(arrived("image_out")[0], pictures[3])
    if if_none == "error":
        assert "none of 4 candidates reaches 1" in result.errors[0]["exception_message"]


def test_a_broken_candidate_is_one_error_that_names_it(host, four):
    pictures = [four[0][0], torch.full((1, 32, 32, 3), float("nan"))]
    result = host.run(first_good(pictures, 1.0))
    (error,) = result.errors
    assert "candidate_2, image 1 of 1: holds NaN" in error["exception_message"]


def compared(a, b):
    prompt = graph(a)
    del prompt["score"]
    inputs = {"model": ["model", 0], "image_a": ["images", 0], "image_b": ["other", 0]}
    prompt |= {"other": give("b", b), "compare": {"class_type": "QSiT_Compare", "inputs": inputs}}
    names = ("winner", "a_is_better", "probability", "difference", "report")
    return prompt | {f"k{i}": keep(["compare", i], name) for i, name in enumerate(names)}


def test_compare_agrees_with_the_library_and_gives_the_better_image(host, nano):
    a, b = batch(photo(0)), batch(photo(1, size=(64, 80), blur=True))
    arrays = [(i[0].numpy() * 255).round().astype("uint8") for i in (a, b)]
    expected = nano.compare(*arrays)
    assert host.run(compared(a, b)).success
    assert arrived("probability") == [pytest.approx(expected.probability_a_better, abs=1e-5)]
    assert arrived("difference") == [pytest.approx(expected.score_a.value - expected.score_b.value, abs=1e-5)]
    better = expected.probability_a_better > 0.5
    assert arrived("a_is_better") == [better]
    assert torch.equal(arrived("winner")[0], a if better else b)


def test_compare_takes_pairs_and_refuses_unequal_numbers(host):
    a = batch(photo(0), photo(1, blur=True))
    host.run(compared(a, a.flip(0)))
    assert len(arrived("winner")) == 2
    assert arrived("probability") == [pytest.approx(0.5, abs=1e-5)]
    (error,) = host.run(compared(a, a[:1])).errors
    assert "image_a has 2 images, image_b 1" in error["exception_message"]


def test_attributes_agree_with_the_library_for_each_image(host, nano):
    images = batch(photo(0), photo(0, blur=True))
    prompt = graph(images)
    del prompt["score"]
    prompt["a"] = {"class_type": "QSiT_Attributes", "inputs": {"model": ["model", 0], "images": ["images", 0]}}
    names = ("sharpness", "noise", "exposure", "color", "contrast", "compression", "weakest", "report")
    assert host.run(prompt | {f"k{i}": keep(["a", i], name) for i, name in enumerate(names)}).success
    expected = nano.attributes([(i.numpy() * 255).round().astype("uint8") for i in images])
    for name in names[:6]:
        assert arrived(name) == pytest.approx([aspects[name] for aspects in expected], abs=1e-5)
    assert arrived("weakest") == [min(aspects, key=aspects.get) for aspects in expected]
