"""Gate and Rank between real scores and what comes after them, run by a host's executor."""

import pytest
import torch

from tests.nodes.graphs import arrived, graph
from tests.nodes.helpers import batch, give, keep, photo

PICTURES = batch(photo(0), photo(0, blur=True), photo(1), photo(1, blur=True))
SIDES = ("passed", "rejected", "is_pass", "n_passed", "n_rejected", "passed_latents", "rejected_latents")
SIDES += ("passed_masks", "rejected_masks", "passed_scores", "rejected_scores", "report")


def scores_of(images, nano):
    return [s.value for s in nano.score([(i.numpy() * 255).round().astype("uint8") for i in images])]


def middle(numbers):
    low, high = sorted(numbers)[1:3]
    return (low + high) / 2


def gated(images, threshold, mode="per image", extra=None, empty_side="stop silently"):
    inputs = {"images": ["images", 0], "scores": ["score", 5], "threshold": threshold, "mode": mode}
    gate = {"class_type": "QSiT_Gate", "inputs": inputs | {"empty_side": empty_side} | (extra or {})}
    kept = {f"keep_{name}": keep(["gate", slot], name) for slot, name in enumerate(SIDES)}
    return graph(images) | {"gate": gate} | kept


def test_the_gate_splits_images_latents_masks_and_scores_alike(host, nano):
    numbers = scores_of(PICTURES, nano)
    threshold = middle(numbers)
    good = [i for i, n in enumerate(numbers) if n >= threshold]
    assert len(good) == 2
    prompt = gated(PICTURES, threshold, extra={"latents": ["latents", 0], "masks": ["masks", 0]})
    prompt["latents"] = give("latents", {"samples": torch.arange(4.0).reshape(4, 1, 1, 1)})
    prompt["masks"] = give("masks", torch.arange(4.0).reshape(4, 1, 1))
    result = host.run(prompt)
    assert result.success and not result.errors
    bad = [i for i in range(4) if i not in good]
    for side, indices in (("passed", good), ("rejected", bad)):
        assert torch.equal(arrived(side)[0], PICTURES[indices])
        assert arrived(f"{side}_latents")[0]["samples"].flatten().tolist() == indices
        assert arrived(f"{side}_masks")[0].flatten().tolist() == indices
        assert [r["score"] for r in arrived(f"{side}_scores")[0]] == pytest.approx(
            [numbers[i] for i in indices], abs=1e-5
        )
    assert arrived("is_pass") == [True]
    assert (arrived("n_passed"), arrived("n_rejected")) == ([2], [2])


@pytest.mark.parametrize("mode", ["per image", "all", "any", "mean"])
@pytest.mark.parametrize(("threshold", "full", "empty"), [(0.0, "passed", "rejected"), (1.0, "rejected", "passed")])
def test_an_empty_side_stops_silently_while_flag_and_counts_flow(host, mode, threshold, full, empty):
    result = host.run(gated(PICTURES[:2], threshold, mode))
    assert result.success and not result.errors
    assert arrived(empty) == [] and arrived(f"{empty}_scores") == []
    assert torch.equal(arrived(full)[0], PICTURES[:2])
    assert arrived("is_pass") == [threshold == 0.0]
    assert sorted(arrived("n_passed") + arrived("n_rejected")) == [0, 2]
    assert len(arrived("report")) == 1


def test_outputs_without_an_input_stop_silently(host):
    result = host.run(gated(PICTURES[:2], 0.0))
    assert not result.errors
    assert arrived("passed_latents") == arrived("passed_masks") == []


def test_the_empty_side_can_say_so(host):
    result = host.run(gated(PICTURES[:1], 1.0, empty_side="stop and say so"))
    assert [e["node_id"] for e in result.errors] == ["keep_passed"]
    assert "0 of 1 passed at 1" in result.errors[0]["exception_message"]


def test_latents_of_another_number_are_one_error_of_the_gate(host):
    prompt = gated(PICTURES[:2], 0.5, extra={"latents": ["latents", 0]})
    prompt["latents"] = give("latents", {"samples": torch.zeros(3, 4, 8, 8)})
    result = host.run(prompt)
    assert [e["node_type"] for e in result.errors] == ["QSiT_Gate"]
    assert "3 latents for 2 images" in result.errors[0]["exception_message"]


def test_scores_of_another_batch_are_one_error_of_the_gate(host):
    prompt = gated(PICTURES[:2], 0.5)
    prompt["more"] = give("more", PICTURES)
    prompt["gate"]["inputs"]["images"] = ["more", 0]
    result = host.run(prompt)
    assert [e["node_type"] for e in result.errors] == ["QSiT_Gate"]
    assert "2 scores for 4 images" in result.errors[0]["exception_message"]


def ranked(k, order="best first", min_score=0.0):
    inputs = {"images": ["images", 0], "scores": ["score", 5], "k": k, "order": order, "min_score": min_score}
    names = ("image_out", "first", "count", "indices", "latents_out", "masks_out", "scores_out", "report")
    rank = {"class_type": "QSiT_Rank", "inputs": inputs | {"latents": ["latents", 0], "masks": ["masks", 0]}}
    prompt = graph(PICTURES) | {"rank": rank} | {f"k{i}": keep(["rank", i], name) for i, name in enumerate(names)}
    prompt["latents"] = give("latents", {"samples": torch.arange(4.0).reshape(4, 1, 1, 1)})
    prompt["masks"] = give("masks", torch.zeros(1, 64, 64))
    return prompt


@pytest.mark.parametrize("order", ["best first", "worst first"])
def test_rank_keeps_the_first_images_with_their_latents(host, nano, order):
    numbers = scores_of(PICTURES, nano)
    expected = sorted(range(4), key=lambda i: numbers[i], reverse=order == "best first")[:3]
    assert host.run(ranked(3, order)).success
    assert torch.equal(arrived("image_out")[0], PICTURES[expected])
    assert torch.equal(arrived("first")[0], PICTURES[expected[:1]])
    assert arrived("latents_out")[0]["samples"].flatten().tolist() == expected
    assert arrived("masks_out")[0].shape == (1, 64, 64)
    assert arrived("indices") == [", ".join(str(i + 1) for i in expected)]
    assert arrived("count") == [3]


def test_rank_stops_silently_when_no_image_reaches_the_minimum(host):
    result = host.run(ranked(2, min_score=1.0))
    assert result.success and not result.errors
    assert arrived("image_out") == arrived("first") == arrived("latents_out") == []
    assert arrived("count") == [0]
    assert arrived("report") == ["no image reaches 1"]
