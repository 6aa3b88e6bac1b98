"""The route with a gradient to the pixels: it must see what the exact route sees."""

import numpy as np
import pytest
import torch
from PIL import Image

import qsit_plugin
from qsit_plugin.engines import gradients
from qsit_plugin.engines.batches import SCORING
from tests.tiny import tiny_checkpoint

SIZES = [(128, 128), (512, 384), (150, 110), (600, 401), (37, 200), (1000, 30), (900, 1400)]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tiny_checkpoint(tmp_path_factory.mktemp("tiny") / "checkpoint", official=False)
    return qsit_plugin.load(folder, device="cpu")


def picture(width: int, height: int, seed: int = 0, hard: bool = False) -> torch.Tensor:
    """(3, H, W) bytes: noise, or black and white only, whose resizing overshoots most."""
    values = np.random.default_rng(seed).integers(0, 256, (3, height, width), dtype=np.uint8)
    return torch.from_numpy((values > 127).astype(np.uint8) * 255 if hard else values)


def smooth(width: int, height: int) -> torch.Tensor:
    """(3, H, W) floats in [0, 1] with structure."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([0.5 + 0.45 * torch.sin(x / (9.0 + c) + y / (13.0 - c)) for c in range(3)])


@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize("size", SIZES)
def test_tiles_agree_with_the_exact_route_within_one_grey_level(model, size, hard):
    pixels = picture(*size, hard=hard)
    exact = torch.from_numpy(model.engine.tiling.cut(Image.fromarray(pixels.permute(1, 2, 0).numpy())))
    difference = gradients.cut(model.engine.tiling, pixels / 255.0).round() - exact
    assert difference.abs().max() <= 1


def test_where_nothing_is_resized_the_probabilities_are_those_of_the_score(model):
    pixels = picture(128, 128)
    score = model.score(pixels)
    shares = gradients.level_probabilities(model, [pixels / 255.0])
    torch.testing.assert_close(shares[0], torch.tensor(list(score.probabilities.values())), atol=1e-5, rtol=0)


def test_the_value_is_the_score_up_to_the_rounding_of_pixels(nano_torch):
    pixels = smooth(300, 220)
    value = gradients.value(gradients.level_probabilities(nano_torch, [pixels]), nano_torch.profile.weights)
    assert value.item() == pytest.approx(nano_torch.score(pixels).value, abs=0.01)


def test_the_gradient_is_the_slope_of_the_value(model):
    """A small step along the gradient changes the value by step times the gradient's length."""
    image = smooth(200, 140).requires_grad_()

    def value(pixels):
        return gradients.value(gradients.level_probabilities(model, [pixels]), model.profile.weights).sum()

    (slope,) = torch.autograd.grad(value(image), image)
    direction = slope / slope.norm()
    with torch.no_grad():
        rise = value(image + 0.01 * direction) - value(image - 0.01 * direction)
    assert rise.item() == pytest.approx(0.02 * slope.norm().item(), rel=0.05)


def test_a_batch_of_mixed_sizes_gives_each_image_its_own_gradient(model):
    images = [smooth(200, 140).requires_grad_(), picture(128, 300).div(255).requires_grad_()]
    together = gradients.level_probabilities(model, images)
    grads = torch.autograd.grad(together[:, 0].sum(), images)
    for index, image in enumerate(images):
        alone = gradients.level_probabilities(model, [image])
        torch.testing.assert_close(alone[0], together[index], atol=1e-5, rtol=0)
        torch.testing.assert_close(torch.autograd.grad(alone[0, 0], image)[0], grads[index], atol=1e-5, rtol=1e-3)


def test_many_images_are_split_by_the_engines_token_budget(model):
    images = [smooth(768, 768)] * 5
    tokens = model.engine.tiling.token_count(768, 768)
    sizes = [len(batch) for batch in gradients._batches(model.engine.tiling, images)]
    assert sum(sizes) == 5
    assert max(sizes) < 5
    assert max(sizes) * tokens <= SCORING.tokens


def test_activations_are_computed_again_and_not_kept(nano_torch):
    """Bytes that autograd keeps for the backward pass, against those of the plain layers on the same tiles."""
    plain, recomputing = nano_torch.engine, nano_torch.engine.recomputing()
    pixels = gradients.normalise(plain.tiling, gradients.cut(plain.tiling, smooth(512, 384))).requires_grad_()
    words = torch.zeros(1, 200, plain.embed([0]).shape[1], requires_grad=True)

    def kept(run) -> int:
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.nbytes) or t, lambda t: t):
            run()
        return sum(sizes)

    assert kept(lambda: recomputing.features(pixels)) < 0.3 * kept(lambda: plain.features(pixels))
    assert kept(lambda: recomputing.states(words)) < 0.3 * kept(lambda: plain.states(words))


def test_recomputing_changes_neither_a_value_nor_the_engine_it_came_from(model):
    image = smooth(200, 140)
    before = model.score(image).value
    shares = gradients.level_probabilities(model, [image.clone().requires_grad_()])
    with torch.no_grad():
        torch.testing.assert_close(gradients.level_probabilities(model, [image]), shares, atol=1e-6, rtol=0)
    assert model.score(image).value == before
    assert not model.checkpoint.model.training


def test_the_weights_stay_frozen(model):
    image = smooth(128, 128).requires_grad_()
    gradients.level_probabilities(model, [image])[0, 0].backward()
    assert image.grad is not None
    assert all(p.grad is None and not p.requires_grad for p in model.checkpoint.model.parameters())


def test_gray_counts_for_all_three_channels(model):
    gray = smooth(128, 128)[:1]
    expected = gradients.level_probabilities(model, [gray.expand(3, -1, -1)])
    torch.testing.assert_close(gradients.level_probabilities(model, [gray]), expected)


def test_values_outside_the_range_are_clipped_and_get_no_gradient(model):
    image = smooth(128, 128)
    image[0, :10] = 1.0 + 0.9 * gradients.OVERSHOOT
    image.requires_grad_()
    shares = gradients.level_probabilities(model, [image])
    torch.testing.assert_close(shares, gradients.level_probabilities(model, [image.detach().clamp(0, 1)]))
    shares[0, 0].backward()
    assert (image.grad[0, :10] == 0).all()
    assert (image.grad[1:] != 0).any()


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (torch.zeros(3, 8, 8, dtype=torch.int32), "needs a float tensor"),
        (torch.zeros(4, 8, 8), "needs a float tensor"),
        (torch.zeros(3, 8, 0), "needs a float tensor"),
        (torch.full((3, 8, 8), float("nan")), "NaN or infinite"),
    ],
)
def test_what_is_no_float_image_is_refused(model, image, message):
    with pytest.raises(qsit_plugin.ImageError, match=message):
        gradients.level_probabilities(model, [image])


def test_bytes_are_read_as_bytes(model):
    """They want no gradient; in a list they stand beside images that do."""
    pixels = picture(200, 140)
    image = smooth(128, 128).requires_grad_()
    shares = gradients.level_probabilities(model, [pixels, image])
    torch.testing.assert_close(shares[:1], gradients.level_probabilities(model, [pixels / 255.0]), atol=1e-6, rtol=0)
    shares.sum(0)[0].backward()
    assert (image.grad != 0).any()


OTHER_RANGES = {
    "0 to 255": (lambda x: x * 255, r"floats from 12.\d+ to 242.\d+, outside \[0, 1\]; divide by 255 first"),
    "-1 to 1": (lambda x: x * 2 - 1, r"floats from -0.9\d* to 0.9\d*, outside \[0, 1\]; take \(image \+ 1\) / 2"),
    "mean and deviation": (lambda x: (x - 0.45) / 0.225, "bring black to 0 and white to 1"),
    "centred": (lambda x: x - 0.5, r"\(image \+ 1\) / 2, if -1 is black"),
    "stretched": (lambda x: x * 1.4, "bring black to 0 and white to 1, or clamp an overshoot"),
}


@pytest.mark.parametrize("name", OTHER_RANGES)
@pytest.mark.parametrize("wanting", [True, False])
def test_values_of_another_range_are_refused_with_and_without_a_gradient(model, name, wanting):
    change, message = OTHER_RANGES[name]
    image = change(smooth(300, 220)).requires_grad_(wanting)
    with pytest.raises(qsit_plugin.ImageError, match=message):
        gradients.level_probabilities(model, [image])
    with pytest.raises(qsit_plugin.ImageError, match=r"outside \[0, 1\]"):
        model.score(image)


def test_the_overshoot_of_a_step_and_of_a_resize_is_clipped(model):
    step = (smooth(128, 128) * 1.2 - 0.1).requires_grad_()
    assert step.min() < 0.0 < 1.0 < step.max()
    edges = torch.nn.functional.interpolate(picture(60, 60, hard=True)[None] / 255.0, (128, 128), mode="bicubic")[0]
    ringing = 0.5 + 0.58 * (edges - 0.5) / (edges - 0.5).abs().max()
    assert ringing.min() < 0.0 < 1.0 < ringing.max()
    for image in (step, ringing):
        shares = gradients.level_probabilities(model, [image])
        torch.testing.assert_close(shares, gradients.level_probabilities(model, [image.detach().clamp(0, 1)]))
