"""Rank, Contact Sheet and First Good Enough over a list: images of several sources and sizes."""

import pytest
import torch

from tests.nodes.graphs import arrived, graph
from tests.nodes.helpers import batch, give, keep, photo
from tests.nodes.test_gate_rank_graph import scores_of

LARGE, SMALL = (96, 128), (64, 64)
NAMES = ("image_out", "first", "count", "indices", "latents_out", "masks_out", "scores_out", "report")


def best_of(pictures, nano):
    """Indices of single pictures of any size, best first, and their scores."""
    scores = [scores_of(picture, nano)[0] for picture in pictures]
    return sorted(range(len(pictures)), key=lambda i: -scores[i]), scores


def ranked(items, k, **more):
    inputs = {"images": ["images", 0], "scores": ["score", 5], "k": k, "order": "best first", "min_score": 0.0}
    rank = {"class_type": "QSiT_Rank", "inputs": inputs | more}
    return graph(items) | {"rank": rank} | {f"k{i}": keep(["rank", i], name) for i, name in enumerate(NAMES)}


def test_of_a_list_of_several_sizes_the_one_best_image_is_kept(host, nano):
    items = [batch(photo(0, blur=True)), batch(photo(1, size=SMALL)), batch(photo(2))]
    order, _ = best_of(items, nano)
    assert host.run(ranked(items, 1)).success
    assert [tuple(image.shape) for image in arrived("image_out")] == [tuple(items[order[0]].shape)]
    assert torch.equal(arrived("image_out")[0], items[order[0]]) and torch.equal(arrived("first")[0], items[order[0]])
    assert (arrived("count"), arrived("indices")) == ([1], [str(order[0] + 1)])


def test_kept_images_are_one_batch_where_their_sizes_agree_and_items_where_not(host, nano):
    same = [batch(photo(0, blur=True)), batch(photo(1), photo(2))]
    order, _ = best_of([same[0], same[1][:1], same[1][1:]], nano)
    host.run(ranked(same, 0))
    (together,) = arrived("image_out")
    assert torch.equal(together, torch.cat(same)[order])
    assert [len(records) for records in arrived("scores_out")] == [3]
    host.run(ranked([*same, batch(photo(1, size=SMALL))], 0))
    singles = arrived("image_out")[1:]
    assert sorted(tuple(image.shape[:3]) for image in singles) == [(1, *SMALL), *[(1, *LARGE)] * 3]
    numbers = [records[0]["score"] for records in arrived("scores_out")[1:]]
    assert numbers == sorted(numbers, reverse=True) and len(numbers) == 4


def test_latents_and_masks_of_a_list_follow_their_images(host, nano):
    items = [batch(photo(0), photo(0, blur=True)), batch(photo(1)), batch(photo(2))]
    order, _ = best_of([torch.cat(items)[i : i + 1] for i in range(4)], nano)
    prompt = ranked(items, 3, latents=["latents", 0], masks=["masks", 0])
    numbers, one = torch.arange(4.0), torch.ones(1, 8, 8)
    prompt["latents"] = give("latents", [{"samples": part[:, None, None, None]} for part in numbers.split([2, 1, 1])])
    prompt["masks"] = give("masks", [one * 10, one * 20, one * 30])  # one for each item of the list
    assert host.run(prompt).success
    assert arrived("latents_out")[0]["samples"].flatten().tolist() == order[:3]
    assert arrived("masks_out")[0][:, 0, 0].tolist() == [[10, 10, 20, 30][i] for i in order[:3]]


def test_latents_with_noise_masks_and_batch_numbers_become_one_batch(host):
    from qsit_plugin.nodes.lists import pool_of

    latents = [
        {"samples": torch.zeros(2, 1, 1, 1), "noise_mask": torch.ones(1, 8, 8), "batch_index": [4, 5]},
        {"samples": torch.ones(1, 1, 1, 1), "noise_mask": torch.zeros(1, 8, 8), "batch_index": [7]},
    ]
    pool = pool_of([torch.zeros(2, 8, 8, 3), torch.ones(1, 8, 8, 3)], latents, None)
    assert pool.groups([2, 0, 1]) == [[2, 0, 1]]
    joined = pool.some_latents([2, 0, 1])
    assert joined["samples"].flatten().tolist() == [1, 0, 0]
    assert joined["noise_mask"][:, 0, 0].tolist() == [0, 1, 1]
    assert joined["batch_index"] == [7, 4, 5]
    latents[1]["samples"] = torch.ones(1, 16, 1, 1)
    assert pool_of(pool.images, latents, None).groups([2, 0]) == [[2], [0]]


def test_other_numbers_and_different_values_for_a_widget_are_one_error(host):
    items = [batch(photo(0)), batch(photo(1))]
    prompt = ranked(items, 1) | {"k_of_each": give("k", [1, 2]), "alone": give("alone", batch(photo(0)))}
    prompt["rank"]["inputs"]["k"] = ["k_of_each", 0]
    (error,) = host.run(prompt).errors
    assert "k must be one value for the whole list, got 2: 1, 2" in error["exception_message"]
    prompt = ranked(items, 1) | {"alone": give("alone", batch(photo(0)))}
    prompt["rank"]["inputs"]["images"] = ["alone", 0]
    (error,) = host.run(prompt).errors
    assert "2 scores for 1 images" in error["exception_message"]


def test_a_list_with_an_item_that_a_gate_stopped_is_not_ranked_but_the_minimum_of_rank_does_it(host, nano):
    """ComfyUI blocks a node that takes lists when one item is blocked."""
    items = [batch(photo(0)), batch(photo(0, blur=True)), batch(photo(1))]
    order, scores = best_of(items, nano)
    threshold = (scores[order[1]] + scores[order[2]]) / 2
    gate = {"images": ["images", 0], "scores": ["score", 5], "threshold": threshold, "mode": "per image"}
    prompt = ranked(items, 0) | {"gate": {"class_type": "QSiT_Gate", "inputs": gate | {"empty_side": "stop silently"}}}
    prompt["rank"]["inputs"] |= {"images": ["gate", 0], "scores": ["gate", 9]}
    result = host.run(prompt)
    assert result.success and not result.errors and arrived("count") == []
    host.run(ranked(items, 0, min_score=threshold))
    assert torch.equal(arrived("image_out")[0], torch.cat([items[i] for i in order[:2]]))


def test_the_contact_sheet_holds_a_list_of_several_sizes(host):
    prompt = graph([batch(photo(0), photo(1)), batch(photo(2, size=SMALL))])
    inputs = {"images": ["images", 0], "scores": ["score", 5], "order": "as given", "columns": 3, "cell": 64}
    prompt["sheet"] = {"class_type": "QSiT_ContactSheet", "inputs": inputs}
    assert host.run(prompt | {"k": keep(["sheet", 0], "sheet")}).success
    (sheet,) = arrived("sheet")
    assert sheet.shape == (1, 64 + 14 + 2 * 4, 3 * 68 + 4, 3)
    third = sheet[0, 4 : 4 + 64, 4 + 2 * 68 : 4 + 2 * 68 + 64]
    assert (third - photo(2, size=SMALL)).abs().max() < 0.003


@pytest.mark.parametrize("needed", [0, 1])
def test_items_of_a_list_are_candidates_one_after_the_other(host, nano, needed):
    items = [batch(photo(0)), batch(photo(1, size=SMALL))]
    items.sort(key=lambda item: scores_of(item, nano)[0])
    low, high = (scores_of(item, nano)[0] for item in items)
    prompt = graph(items)
    del prompt["score"]
    inputs = {"model": ["model", 0], "threshold": (low + high) / 2 if needed else 0.0, "if_none": "best"}
    inputs |= {"candidate_1": ["images", 0], "candidate_2": ["second", 0]}
    prompt |= {"first": {"class_type": "QSiT_FirstGoodEnough", "inputs": inputs}, "second": give("second", items[0])}
    names = ("image_out", "score", "tries", "is_pass", "scores", "report")
    result = host.run(prompt | {f"k{i}": keep(["first", i], name) for i, name in enumerate(names)})
    assert result.success and not result.errors
    assert torch.equal(arrived("image_out")[0], items[needed])
    assert (arrived("tries"), arrived("is_pass")) == ([needed + 1], [True])
    assert arrived("report")[0].splitlines()[-1] == f"taken: candidate_1, item {needed + 1}"
