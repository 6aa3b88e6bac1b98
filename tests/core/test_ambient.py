"""What a caller has set in the process or the thread changes no number: autocast, default types and devices, modes."""

from __future__ import annotations

import contextlib

import pytest
import torch

import qsit_plugin as qsit
from qsit_plugin.engines import gradients
from qsit_plugin.model import QSiT
from tests.tiny import tiny_checkpoint

QUESTION = "What is wrong?"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_checkpoint(tmp_path_factory.mktemp("tiny") / "checkpoint", official=False)


@pytest.fixture(scope="module")
def model(folder):
    return qsit.load(folder, device="cpu")


@pytest.fixture(scope="module")
def pixels():
    """(3, 140, 200) floats of whole grey levels."""
    return torch.randint(0, 256, (3, 140, 200), generator=torch.Generator().manual_seed(0)) / 255.0


def everything(model, pixels):
    """What each route says, with all digits."""
    loss = loss_of(model, pixels.clone().requires_grad_())
    look = model.encode(pixels)
    return {
        "score": model.score(pixels),
        "score of a look": look.score(),
        "level logits": model.level_logits(pixels).tolist(),
        "choose": model.choose(pixels, "Which?", ["noise", "blur"]),
        "attributes": model.attributes(pixels),
        "ask": model.ask(pixels, QUESTION, max_new_tokens=6),
        "sampled": model.ask(pixels, QUESTION, max_new_tokens=6, temperature=2.0),
        "stream": list(model.stream(pixels, QUESTION, max_new_tokens=6)),
        "map": model.quality_map(pixels, window=100).tolist(),
        "loss": (loss.dtype, loss.tolist()),
    }


def loss_of(model, image):
    return gradients.value(gradients.level_probabilities(model, [image]), model.profile.weights)


@contextlib.contextmanager
def default_dtype(dtype):
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextlib.contextmanager
def deterministic():
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


AROUND = {
    "autocast to bfloat16": lambda: torch.autocast("cpu", torch.bfloat16),
    "autocast to float16": lambda: torch.autocast("cpu", torch.float16),
    "default dtype float64": lambda: default_dtype(torch.float64),
    "default dtype bfloat16": lambda: default_dtype(torch.bfloat16),
    "default device meta": lambda: torch.device("meta"),
    "deterministic algorithms": deterministic,
}


@pytest.mark.parametrize("around", AROUND)
def test_every_route_says_the_same_bit_by_bit_whatever_is_set_around_it(model, pixels, around):
    expected = everything(model, pixels)
    with AROUND[around]():
        found = everything(model, pixels)
    for route, result in expected.items():
        assert found[route] == result, route


@pytest.mark.parametrize("around", AROUND)
def test_a_model_that_is_opened_there_says_the_same_too(folder, model, pixels, around):
    with AROUND[around]():
        opened = qsit.load(folder, device="cpu")
    assert opened.score(pixels) == model.score(pixels)


def test_a_loss_of_an_autocast_has_the_gradient_of_one_without(model, pixels):
    """backward() belongs outside of autocast, as torch says; what it recomputes is computed as the loss was."""
    image, plain = pixels.clone().requires_grad_(), pixels.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        loss = loss_of(model, image)
    loss.sum().backward()
    loss_of(model, plain).sum().backward()
    assert torch.equal(image.grad, plain.grad)


def test_autocast_is_on_again_after_a_look_and_its_dtype_is_kept(model, pixels):
    with torch.autocast("cpu", torch.bfloat16):
        model.score(pixels)
        assert (pixels[0] @ pixels[0].T).dtype == torch.bfloat16


def test_a_model_in_training_is_read_in_the_callers_autocast(model, pixels):
    """Validation during a run in bfloat16: a copy in float32 would cost twice as much."""
    validated = QSiT(model.checkpoint, follow_autocast=True)
    assert validated.score(pixels) == model.score(pixels)
    with torch.autocast("cpu", torch.bfloat16):
        assert validated.score(pixels) != model.score(pixels)


def test_an_image_of_inference_mode_gets_its_gradient(model, pixels):
    plain = pixels.clone().requires_grad_()
    with torch.inference_mode():
        leaf = pixels.clone().requires_grad_()
    for image in (plain, leaf):
        gradients.level_probabilities(model, [image])[0, 0].backward()
    assert leaf.is_inference()
    assert torch.equal(leaf.grad, plain.grad)


def test_weights_that_were_opened_in_inference_mode_let_a_gradient_pass(folder, model, pixels):
    with torch.inference_mode():
        opened = qsit.load(folder, device="cpu")
    image = pixels.clone().requires_grad_()
    shares = gradients.level_probabilities(opened, [image])
    shares[0, 0].backward()
    assert torch.equal(shares, gradients.level_probabilities(model, [pixels]))
    assert (image.grad != 0).any()
