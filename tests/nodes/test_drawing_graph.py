"""Overlay, Contact Sheet and Quality Map, run by a host's executor."""

import numpy as np
import pytest
import torch

from qsit_plugin.nodes.drawing import color_of
from tests.nodes.graphs import arrived, graph
from tests.nodes.helpers import keep
from tests.nodes.saving import PICTURES, scored


def test_colors_go_from_red_over_yellow_to_green():
    red, yellow, green = color_of(0.0), color_of(0.5), color_of(1.0)
    assert red[0] > 200 > red[1] and green[1] > green[0] and min(yellow[:2]) > 200


@pytest.mark.parametrize("position", ["bottom", "top"])
def test_the_overlay_marks_one_edge_and_leaves_the_rest(host, position):
    prompt = graph(PICTURES) | {"o": scored("QSiT_Overlay", position=position), "k": keep(["o", 0], "marked")}
    assert host.run(prompt).success
    (marked,) = arrived("marked")
    assert marked.shape == PICTURES.shape and marked.dtype == torch.float32
    strip, rest = (slice(82, None), slice(0, 82)) if position == "bottom" else (slice(0, 14), slice(14, None))
    assert (marked[:, rest] - PICTURES[:, rest]).abs().max() < 0.003
    assert (marked[:, strip] - PICTURES[:, strip]).abs().mean() > 0.1


def test_the_contact_sheet_holds_every_picture_best_first(host, nano):
    prompt = graph(PICTURES)
    prompt["c"] = scored("QSiT_ContactSheet", order="best first", columns=2, cell=128)
    assert host.run(prompt | {"k": keep(["c", 0], "sheet")}).success
    (sheet,) = arrived("sheet")
    assert sheet.shape == (1, 2 * (128 + 14 + 4) + 4, 2 * 132 + 4, 3)
    scores = [s.value for s in nano.score([(i.numpy() * 255).round().astype("uint8") for i in PICTURES])]
    best = PICTURES[int(np.argmax(scores))]
    place = sheet[0, 4 + 16 : 4 + 16 + 96, 4 : 4 + 128]  # 96 x 128 pictures, centred in squares of 128
    assert (place - best).abs().max() < 0.003


def test_the_quality_map_is_the_librarys(host, nano):
    prompt = graph(PICTURES[:1])
    inputs = {"model": ["model", 0], "images": ["images", 0], "window": 48, "overlap": 0.0, "strength": 1.0}
    prompt["m"] = {"class_type": "QSiT_QualityMap", "inputs": inputs}
    prompt |= {f"k{i}": keep(["m", i], name) for i, name in enumerate(("overlay", "map", "mask", "report"))}
    assert host.run(prompt).success
    array = (PICTURES[0].numpy() * 255).round().astype("uint8")
    expected = nano.quality_map(array, window=48, overlap=0.0)
    assert np.abs(arrived("mask")[0][0].numpy() - expected).max() < 1e-5
    assert torch.equal(arrived("overlay")[0], arrived("map")[0])
    assert arrived("map")[0].shape == (1, 96, 128, 3)
    prompt["m"]["inputs"]["window"] = 5
    (error,) = host.run(prompt).errors
    assert "window must be 0 or at least 8" in error["exception_message"]
