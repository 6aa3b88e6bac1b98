"""The pixel limit can be raised, lowered and lifted wherever an image is read, as its message says."""

import numpy as np
import pytest
import torch
from PIL import Image

import qsit_plugin
from qsit_plugin.images.reading import ImageError, read_image
from tests.core.pictures import PIXELS
from tests.tiny import tiny_checkpoint


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_checkpoint(tmp_path_factory.mktemp("limit") / "tiny", official=False)


@pytest.fixture(scope="module")
def small(folder):
    return qsit_plugin.load(folder, max_pixels=599)


@pytest.mark.parametrize(
    "look",
    [
        lambda model: model.score(PIXELS),
        lambda model: model.encode(PIXELS),
        lambda model: model.explain(PIXELS),
        lambda model: model.choose(PIXELS, "Which?", ["this", "that"]),
        lambda model: model.quality_map(PIXELS),
        lambda model: model.level_logits([PIXELS]),
    ],
)
def test_every_way_of_looking_keeps_the_models_limit_and_names_the_argument_and_the_option(small, look):
    with pytest.raises(ImageError, match=r"30x20 is over the limit of 599 pixels.*max_pixels \(--max-pixels"):
        look(small)


def test_a_limit_of_exactly_the_image_and_no_limit_give_the_same_score_as_the_default(folder):
    scores = [
        qsit_plugin.load(folder, **given).score(PIXELS) for given in ({}, {"max_pixels": 600}, {"max_pixels": None})
    ]
    assert scores[0] == scores[1] == scores[2]
    assert scores[0].mode == "released"


def test_a_gradient_keeps_the_limit_too(small):
    from qsit_plugin.engines.gradients import level_probabilities

    with pytest.raises(ImageError, match="over the limit of 599"):
        level_probabilities(small, [torch.rand(3, 20, 30, requires_grad=True)])


@pytest.mark.parametrize("wrong", [0, -1, 2.5, "1000", True, float("inf")])
def test_a_limit_that_is_no_whole_number_from_1_on_is_refused_before_a_checkpoint_is_opened(wrong):
    with pytest.raises(ValueError, match="max_pixels must be a whole number from 1 on, or None"):
        qsit_plugin.load("no-such-model", max_pixels=wrong)
    with pytest.raises(ValueError, match="max_pixels must be"):
        read_image(PIXELS, max_pixels=wrong)


def test_a_numpy_integer_is_a_whole_number():
    assert read_image(PIXELS, max_pixels=np.int64(600)).size == (30, 20)


def test_the_default_limit_refuses_what_no_limit_lets_pass():
    wide = Image.new("1", (2**15, 2**13 + 1))
    with pytest.raises(ImageError, match="over the limit of 268,435,456"):
        read_image(wide)
    assert qsit_plugin.images.errors.check_size(2**15, 2**13 + 1, "wide", None) is None


def test_the_metric_takes_the_limit(folder):
    pytest.importorskip("pyiqa", reason='needs pip install "qsit-plugin[pyiqa]"')
    import pyiqa

    metric = pyiqa.create_metric("qsit-nano", pretrained_model_path=str(folder), max_pixels=599, device="cpu")
    with pytest.raises(ImageError, match="over the limit of 599"):
        metric(torch.rand(1, 3, 20, 30))
    assert metric(torch.rand(1, 3, 20, 20)).shape == (1, 1)


@pytest.mark.parametrize(
    ("suffix", "mode", "options"),
    [("webp", "RGB", {"lossless": True}), ("png", "I;16", {}), ("tiff", "F", {}), ("tiff", "I", {})],
)
def test_what_takes_twice_the_memory_to_decode_has_half_the_limit(tmp_path, suffix, mode, options):
    file = tmp_path / f"hungry.{suffix}"
    Image.new(mode, (30, 20)).save(file, **options)
    with pytest.raises(ImageError, match="30x20 is over the limit of 599 pixels"):
        read_image(file, max_pixels=1199)
    assert read_image(file, max_pixels=1200).size == (30, 20)


def test_a_webp_of_38_bytes_that_claims_268_million_pixels_is_refused_before_it_is_decoded(tmp_path):
    side = (16383 - 1).to_bytes(3, "little")
    body = b"VP8X" + (10).to_bytes(4, "little") + bytes(4) + side + side
    file = tmp_path / "bomb.webp"
    file.write_bytes(b"RIFF" + (4 + len(body)).to_bytes(4, "little") + b"WEBP" + body)
    with pytest.raises(ImageError):
        read_image(file)


def test_a_program_that_draws_is_no_picture(tmp_path):
    """Pillow would run Ghostscript on it, where that is installed."""
    file = tmp_path / "picture.jpg"
    Image.new("RGB", (30, 20)).save(file, format="EPS")
    with pytest.raises(ImageError, match="EPS, a vector format"):
        read_image(file)
