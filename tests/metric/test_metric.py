"""The pyiqa metric on a tiny random checkpoint, and on the embedded model where it is there."""

import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

pyiqa = pytest.importorskip("pyiqa")

import qsit_plugin as qsit  # noqa: E402
from qsit_plugin.protocol import ScoreProfile  # noqa: E402
from tests.tiny import tiny_checkpoint  # noqa: E402

qsit.register()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_checkpoint(tmp_path_factory.mktemp("tiny") / "checkpoint", official=False)


@pytest.fixture(scope="module")
def metric(folder):
    return create(folder)


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    """A PNG of 150 x 110 pixels with structure and noise."""
    y, x = np.mgrid[0:110, 0:150]
    waves = [127 + 120 * np.sin(x / (5 + c) + y / (9 - c)) for c in range(3)]
    noise = np.random.default_rng(0).normal(0, 8, (110, 150, 3))
    path = tmp_path_factory.mktemp("photo") / "waves.png"
    Image.fromarray((np.stack(waves, -1) + noise).clip(0, 255).astype(np.uint8)).save(path)
    return path


@pytest.fixture(scope="module")
def tensor(photo):
    """The same picture as pyiqa's users hold it: (1, 3, H, W) in [0, 1]."""
    return torch.from_numpy(np.asarray(Image.open(photo)).copy()).permute(2, 0, 1)[None].float() / 255


def create(folder, **options):
    return pyiqa.create_metric("qsit-nano", pretrained_model_path=str(folder), device="cpu", **options)


def test_pyiqa_lists_our_names_as_no_reference_metrics():
    names = {"qsit", "qsit_8bit", "qsit_4bit", "qsit-mini", "qsit-mini_8bit", "qsit-mini_4bit", "qsit-nano"}
    assert set(pyiqa.list_models(metric_mode="NR", filter="qsit*")) == names


def test_a_metric_states_its_direction_and_range(metric):
    assert (metric.lower_better, metric.score_range, metric.metric_mode) == (False, "0, 1", "NR")


def test_a_batch_gives_one_float32_row_an_image(metric, tensor):
    result = metric(torch.cat([tensor, tensor.flip(-1), 1 - tensor]))
    assert (result.shape, result.dtype) == ((3, 1), torch.float32)
    assert ((result >= 0) & (result <= 1)).all()
    assert len(result.unique()) == 3  # it looks at the images


def test_path_pil_and_tensor_agree_exactly(metric, photo, tensor):
    expected = metric(tensor)
    assert torch.equal(metric(str(photo)), expected)
    assert torch.equal(metric(Image.open(photo)), expected)
    assert torch.equal(metric(photo.read_bytes()), expected)


def test_the_metric_gives_what_the_library_gives(metric, folder, photo):
    assert metric(str(photo)).item() == np.float32(qsit.load(folder, device="cpu").score(photo).value)


def test_a_batch_scores_like_its_images_alone(metric, tensor):
    batch = torch.cat([tensor, 1 - tensor])
    alone = torch.cat([metric(image[None]) for image in batch])
    torch.testing.assert_close(metric(batch), alone, atol=1e-5, rtol=0)


def test_a_batch_size_of_ones_own_changes_no_score(folder, metric, tensor):
    batch = torch.cat([tensor, tensor.flip(-1), 1 - tensor])
    torch.testing.assert_close(create(folder, batch_size=2)(batch), metric(batch), atol=1e-5, rtol=0)


def test_an_impossible_batch_size_is_refused(folder):
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        create(folder, batch_size=0)


def test_gray_scores_like_the_same_picture_in_three_channels(metric, tensor):
    gray = tensor[:, :1]
    assert torch.equal(metric(gray), metric(gray.expand(-1, 3, -1, -1)))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_other_float_types_score_as_float32_does(metric, tensor, dtype):
    """Asked of the network itself: pyiqa's own range check refuses white in float16."""
    assert torch.equal(metric.net(tensor.to(dtype)), metric(tensor))


def test_the_distribution_has_five_probabilities_whose_mean_is_the_score(metric, tensor):
    shares = metric(torch.cat([tensor, 1 - tensor]), return_dist=True)
    assert (shares.shape, shares.dtype) == ((2, 5), torch.float32)
    torch.testing.assert_close(shares.sum(1), torch.ones(2))
    value = shares @ torch.tensor([[1.0], [0.75], [0.5], [0.25], [0.0]])
    torch.testing.assert_close(value, metric(torch.cat([tensor, 1 - tensor])))


def test_a_calibrated_scale_gives_its_mos(folder, tensor, tmp_path):
    profile = replace(
        ScoreProfile.load(folder),
        scales={"koniq": {"kind": "isotonic", "parameters": [[0, 1], [10, 90]], "range": [0, 100]}},
    )
    metric = create(folder, profile=profile)
    expected = 10 + 80 * metric(tensor)
    torch.testing.assert_close(metric(tensor, return_mos="koniq"), expected)


def test_a_scale_without_calibration_is_refused(metric, tensor):
    with pytest.raises(ValueError, match="no calibration for scale 'koniq'"):
        metric(tensor, return_mos="koniq")


def test_a_distribution_on_a_mos_scale_is_refused(metric, tensor):
    with pytest.raises(ValueError, match="exclude each other"):
        metric(tensor, return_dist=True, return_mos="koniq")


def test_a_mos_with_a_gradient_is_refused(metric, tensor):
    with pytest.raises(ValueError, match="return_mos gives no gradient"):
        metric.net(tensor.clone().requires_grad_(), return_mos="koniq")


@pytest.mark.parametrize("kind", ["8bit", "4bit"])
def test_a_quantized_metric_scores_and_survives_a_move(tmp_path, tensor, kind):
    pytest.importorskip("bitsandbytes")
    folder = tiny_checkpoint(tmp_path / "wide", official=False, hidden=64)  # bitsandbytes packs blocks of 64
    metric = pyiqa.create_metric(f"qsit-mini_{kind}", pretrained_model_path=str(folder), device="cpu")
    before = metric(tensor)
    assert torch.equal(metric.to("cpu")(tensor), before)
    assert metric.net.core.score(tensor[0]).mode == f"{kind} weights"


def test_without_bitsandbytes_a_quantized_metric_says_what_to_install(monkeypatch, folder):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(ModuleNotFoundError, match="pip install bitsandbytes"):
        pyiqa.create_metric("qsit_4bit", pretrained_model_path=str(folder), device="cpu")


def test_another_task_is_refused(metric, tensor):
    with pytest.raises(ValueError, match="aesthetic"):
        metric(tensor, task_="aesthetic")


def test_a_misspelt_option_is_refused(folder, metric, tensor):
    with pytest.raises(TypeError, match="revison"):
        create(folder, revison="main")
    with pytest.raises(TypeError, match="return_distribution"):
        metric(tensor, return_distribution=True)


def test_a_checkpoint_that_is_not_there_is_never_replaced(tmp_path):
    with pytest.raises(qsit.WeightsError):
        create(tmp_path / "nothing")


def test_as_loss_gives_every_image_of_a_batch_a_gradient(folder, tensor):
    batch = torch.cat([tensor, 1 - tensor]).requires_grad_()
    create(folder, as_loss=True)(batch).backward()
    assert torch.isfinite(batch.grad).all()
    assert (batch.grad.abs().amax(dim=(1, 2, 3)) > 0).all()


def test_with_a_gradient_the_score_is_the_same_up_to_the_rounding_of_pixels(nano, photo, tensor):
    loss = pyiqa.create_metric("qsit-nano", device=nano.device, as_loss=True)
    assert loss(tensor.clone().requires_grad_()).item() == pytest.approx(nano.score(photo).value, abs=0.01)


def test_without_as_loss_no_graph_is_kept(metric, tensor):
    assert not metric(tensor.clone().requires_grad_()).requires_grad


def test_the_distribution_has_a_gradient_too(metric, tensor):
    wanting = tensor.clone().requires_grad_()
    shares = metric.net(wanting, return_dist=True)
    assert shares.shape == (1, 5)
    shares[0, 4].backward()
    assert (wanting.grad != 0).any()


def test_a_list_of_mixed_sizes_and_kinds_is_one_batch(metric, photo, tensor):
    result = metric.net([str(photo), tensor[0, :, :100, :], tensor])
    expected = torch.cat([metric(tensor), metric(tensor[:, :, :100, :]), metric(tensor)])
    torch.testing.assert_close(result, expected, atol=1e-5, rtol=0)


def test_a_list_of_mixed_sizes_has_gradients(metric, tensor):
    images = [tensor[0].clone().requires_grad_(), tensor[:, :, :80].clone().requires_grad_()]
    metric.net(images).sum().backward()
    assert all((image.grad != 0).any() for image in images)


def test_a_file_among_tensors_that_want_gradients_is_refused(metric, photo, tensor):
    with pytest.raises(qsit.ImageError, match="give tensors only"):
        metric.net([tensor[0].clone().requires_grad_(), str(photo)])


def test_as_loss_without_gradients_is_the_mean_score(folder, metric, tensor):
    batch = torch.cat([tensor, 1 - tensor])
    torch.testing.assert_close(create(folder, as_loss=True)(batch), metric(batch).mean(), atol=1e-5, rtol=0)


def test_values_outside_the_range_are_an_image_error_even_unchecked_by_pyiqa(folder, tensor):
    with pytest.raises(qsit.ImageError):
        create(folder, check_input_range=False)(tensor * 255)


def test_the_metric_explains_and_answers_with_the_same_weights(metric, folder, photo, tensor):
    library = qsit.load(folder, device="cpu")
    assert metric.net.explain(str(photo), max_new_tokens=5) == library.explain(photo, max_new_tokens=5)
    (answer,) = metric.net.ask(tensor, "Is it blurry?", max_new_tokens=5)
    assert answer == library.ask(photo, "Is it blurry?", max_new_tokens=5)
    assert metric.net.explain(str(photo), question="Is it blurry?", max_new_tokens=5) == answer


def test_pyiqa_sees_the_weights_frozen_and_the_core_follows_them(folder):
    metric = create(folder, dtype="float32")
    parameters = list(metric.net.parameters())
    assert sum(p.numel() for p in parameters) > 1000
    assert not any(p.requires_grad for p in parameters)
    metric.net.double()
    assert metric.net.core.dtype == torch.float64


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_moving_an_automatic_metric_to_the_gpu_reads_what_the_library_reads_there(folder, tensor, photo):
    metric = create(folder).to("cuda")
    result = metric.net(tensor)
    assert (result.device.type, metric.net.core.dtype) == ("cuda", torch.float16)
    assert result.item() == np.float32(qsit.load(folder, device="cuda").score(photo).value)


def test_the_embedded_model_is_a_metric_by_its_name(nano, photo):
    metric = pyiqa.create_metric("qsit-nano", device=nano.device)
    assert metric(str(photo)).item() == np.float32(nano.score(photo).value)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_loss_under_autocast_is_float32_and_equals_the_loss_outside(folder, tensor, dtype):
    loss = create(folder, as_loss=True)
    expected = loss(tensor.clone().requires_grad_())
    with torch.autocast("cpu", dtype):
        found = loss(tensor.clone().requires_grad_())
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)


def test_a_compiled_metric_gives_the_same_scores_and_gradients(folder, metric, tensor):
    torch.compiler.reset()
    compiled = torch.compile(metric, backend="eager")
    assert torch.equal(compiled(tensor), metric(tensor))
    loss, grads = create(folder, as_loss=True), []
    for function in (loss, torch.compile(loss, backend="eager")):
        image = tensor.clone().requires_grad_()
        function(image).backward()
        grads.append(image.grad)
    assert torch.equal(*grads)


def test_a_metric_inside_a_compiled_step_breaks_its_graph_and_no_more(metric, tensor):
    torch.compiler.reset()
    step = torch.compile(lambda image: metric((image * 0.5).round(decimals=3)) + 1, backend="eager")
    assert torch.equal(step(tensor), metric((tensor * 0.5).round(decimals=3)) + 1)


def test_a_leaf_of_inference_mode_gets_its_gradient(folder, tensor):
    with torch.inference_mode():
        leaf = tensor.clone().requires_grad_()
    create(folder, as_loss=True)(leaf).backward()
    assert (leaf.grad != 0).any()


def test_bytes_in_a_list_with_a_tensor_that_wants_a_gradient_are_read_as_bytes(metric, tensor):
    pixels = (tensor[0] * 255).round().to(torch.uint8)
    wanting = tensor[0].clone().requires_grad_()
    result = metric.net([wanting, pixels])
    torch.testing.assert_close(result[0], result[1])
    result.sum().backward()
    assert (wanting.grad != 0).any()


def test_values_of_another_range_are_refused_with_a_gradient_too(folder, tensor):
    loss = create(folder, as_loss=True, check_input_range=False)
    for image in (tensor * 255, tensor * 2 - 1):
        with pytest.raises(qsit.ImageError, match=r"outside \[0, 1\]"):
            loss(image.requires_grad_())


def test_a_question_longer_than_the_context_is_an_error_of_the_metric_too(metric, tensor):
    with pytest.raises(qsit.ContextError, match="at most 32,768"):
        metric.net.ask(tensor, "is it blurry? " * 5000)
