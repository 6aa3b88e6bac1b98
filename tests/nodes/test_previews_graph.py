"""What Quality Map, Overlay and Contact Sheet draw, and the previews of these and of the nodes that choose."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageChops

from qsit_plugin.nodes.labels import POSITIONS, labelled, strip_height, with_legend
from tests.nodes.graphs import arrived, graph
from tests.nodes.helpers import batch, give, keep, photo

PICTURES = batch(photo(0), photo(0, blur=True))
SCORED = {"images": ["images", 0], "scores": ["score", 5]}
RECORD = {"score": 0.75, "level": "excellent", "std": 0.1}
GATE = {"threshold": 0.0, "mode": "per image", "empty_side": "stop silently"}
DRAWING = {
    "QSiT_Overlay": SCORED | {"position": "bottom"},
    "QSiT_ContactSheet": SCORED | {"order": "as given", "columns": 2, "cell": 64},
    "QSiT_QualityMap": {"model": ["model", 0], "images": ["images", 0], "window": 96, "overlap": 0.0, "strength": 0.5},
}
CHOOSING = {
    "QSiT_Gate": SCORED | GATE,
    "QSiT_Rank": SCORED | {"k": 1, "order": "best first", "min_score": 0.0},
    "QSiT_FirstGoodEnough": {"model": ["model", 0], "threshold": 0.0, "if_none": "best", "candidate_1": ["images", 0]},
}


def previews(host, result, node):
    """The pictures that the page shows on a node, from ComfyUI's temp folder."""
    shown = result.shown[node]["images"]
    assert all(image["type"] == "temp" for image in shown)
    found = []
    for image in shown:
        with Image.open(host.base / "temp" / image["subfolder"] / image["filename"]) as file:
            found.append(file.copy())
    return found


@pytest.mark.parametrize("kind", DRAWING)
def test_a_node_that_draws_runs_alone_and_shows_what_it_drew(host, kind):
    prompt = graph(PICTURES) | {"node": {"class_type": kind, "inputs": DRAWING[kind]}}
    if kind == "QSiT_QualityMap":
        del prompt["score"]  # nothing else in the graph is an output
    result = host.run(prompt)
    assert result.success and not result.errors
    sizes = {"QSiT_Overlay": [(128, 96)] * 2, "QSiT_ContactSheet": [(140, 86)], "QSiT_QualityMap": [(128, 96)] * 2}
    assert [picture.size for picture in previews(host, result, "node")] == sizes[kind]
    assert result.shown["node"]["text"][0]


@pytest.mark.parametrize(("kind", "count"), [("QSiT_Gate", 2), ("QSiT_Rank", 1), ("QSiT_FirstGoodEnough", 2)])
def test_a_node_that_chooses_shows_the_chosen_pictures_and_its_report(host, kind, count):
    prompt = graph(PICTURES) | {"node": {"class_type": kind, "inputs": CHOOSING[kind]}, "k": keep(["node", 0], "out")}
    result = host.run(prompt)
    found = [torch.from_numpy(np.array(picture)) / 255 for picture in previews(host, result, "node")]
    assert len(found) == count and (torch.stack(found) - arrived("out")[0]).abs().max() < 0.004
    assert result.shown["node"]["text"][0]


def test_nothing_is_shown_where_nothing_passed(host):
    node = {"class_type": "QSiT_Gate", "inputs": SCORED | GATE | {"threshold": 1.0}}
    result = host.run(graph(PICTURES) | {"node": node, "k": keep(["node", 2], "is_pass")})
    assert previews(host, result, "node") == [] and result.shown["node"]["text"][0].startswith("0 of 2 passed")


def test_grey_images_with_nan_pass_the_gate_and_can_be_looked_at(host):
    images = torch.full((2, 32, 32, 1), 0.5)
    images[0, 0, 0] = float("nan")
    prompt = graph(PICTURES) | {"grey": give("grey", images), "k": keep(["node", 0], "out")}
    prompt["node"] = {"class_type": "QSiT_Gate", "inputs": SCORED | GATE | {"images": ["grey", 0]}}
    result = host.run(prompt)
    assert result.success and arrived("out")[0].shape == images.shape
    assert [(p.mode, p.getpixel((9, 9))) for p in previews(host, result, "node")] == [("RGB", (127, 127, 127))] * 2


@pytest.mark.parametrize("position", POSITIONS)
def test_a_label_outside_covers_nothing_of_the_picture(position):
    picture = Image.effect_noise((320, 240), 60).convert("RGB")
    result = labelled(picture, RECORD, position)
    place = (0, result.height - 240, 320, result.height) if position == "above" else (0, 0, 320, 240)
    untouched = ImageChops.difference(result.crop(place), picture).getbbox() is None
    assert untouched == (position in ("below", "above", "right"))
    assert (result.size == picture.size) == (position in ("bottom", "top"))
    poor = labelled(picture, RECORD | {"score": 0.0, "level": "bad"}, position)
    assert poor.size == result.size, "labels of one batch must have one size"


@pytest.mark.parametrize(("size", "least", "most"), [((6000, 4000), 200, 400), ((8000, 1000), 120, 250)])
def test_the_label_grows_with_the_photo(size, least, most):
    assert least <= strip_height(size) <= most


def test_the_text_of_a_label_fits_a_narrow_picture():
    assert strip_height((96, 128)) == 14
    narrow = labelled(Image.new("RGB", (400, 4000), "white"), RECORD, "below")
    margin = narrow.crop((396, 4000, 400, 4000 + strip_height((400, 4000)) * 3 // 4))
    assert max(band[1] for band in margin.getextrema()) < 100, "letters run over the edge"


def test_the_legend_goes_from_good_above_to_bad_below_and_leaves_the_picture():
    picture = Image.effect_noise((320, 240), 60).convert("RGB")
    result = with_legend(picture)
    assert result.height == 240 and 340 < result.width < 480
    assert ImageChops.difference(result.crop((0, 0, 320, 240)), picture).getbbox() is None
    column = np.asarray(result)[:, 320 + 8].astype(int)
    assert column[0, 1] > column[0, 0] + 60 and column[-1, 0] > column[-1, 1] + 60


def test_a_map_with_a_legend_is_wider_and_its_mask_is_not(host):
    node = {"class_type": "QSiT_QualityMap", "inputs": DRAWING["QSiT_QualityMap"] | {"legend": True}}
    names = ("overlay", "map", "mask")
    prompt = graph(PICTURES[:1]) | {"node": node} | {n: keep(["node", i], n) for i, n in enumerate(names)}
    assert host.run(prompt).success
    overlay, colors, mask = (arrived(name)[0] for name in names)
    assert overlay.shape == colors.shape and overlay.shape[2] > 128 and mask.shape == (1, 96, 128)
