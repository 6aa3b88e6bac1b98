"""What pyiqa promises about every metric, held by ours: options, inputs, repeatability. See also test_metric.py.

On a tiny random checkpoint: none of this depends on what the weights say.
"""

import copy

import numpy as np
import pytest
import torch
from PIL import Image

pyiqa = pytest.importorskip("pyiqa")

import qsit_plugin as qsit  # noqa: E402
from tests.tiny import tiny_checkpoint  # noqa: E402

qsit.register()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_checkpoint(tmp_path_factory.mktemp("tiny") / "checkpoint", official=False)


@pytest.fixture(scope="module")
def metric(folder):
    return create(folder)


@pytest.fixture(scope="module")
def pixels():
    """uint8 (96, 128, 3): all 256 values in every channel, in blocks of 6 x 8, each channel in another order."""
    rng = np.random.default_rng(5)
    channels = [rng.permutation(256).astype(np.uint8).reshape(16, 16) for _ in range(3)]
    return np.stack(channels, -1).repeat(6, 0).repeat(8, 1)


@pytest.fixture(scope="module")
def batch(pixels):
    """(3, 3, 96, 128) in [0, 1]: three pictures that score differently."""
    image = as_tensor(pixels)
    return torch.cat([image, 1 - image, image.flip(-1)])


def as_tensor(pixels):
    """(1, C, H, W) in [0, 1], of 8-bit pixels (H, W) or (H, W, C)."""
    return torch.from_numpy(np.atleast_3d(pixels).copy()).permute(2, 0, 1)[None].float() / 255


def create(folder, **options):
    return pyiqa.create_metric("qsit-nano", pretrained_model_path=str(folder), device="cpu", **options)


def as_loss(folder, **options):
    return create(folder, as_loss=True, **options)


# ---- what a metric is created with


def test_filters_find_and_leave_out_our_names():
    ours = set(pyiqa.list_models(filter="qsit*"))
    assert {"qsit", "qsit-mini", "qsit-nano"} <= ours
    assert ours <= set(pyiqa.list_models(metric_mode="NR"))
    assert not ours & set(pyiqa.list_models(metric_mode="FR"))
    assert not ours & set(pyiqa.list_models(exclude_filters="qsit*"))


def test_options_that_pyiqa_keeps_for_itself_never_reach_the_network(folder, metric, batch):
    kept = create(folder, seed=7, metric_mode="NR", loss_weight=None, loss_reduction="mean", check_input_range=True)
    assert torch.equal(kept(batch), metric(batch))


def test_each_reduction_of_the_loss_is_that_of_the_scores(folder, batch):
    rows = as_loss(folder, loss_reduction="none")(batch)
    assert rows.shape == (3, 1)
    torch.testing.assert_close(as_loss(folder, loss_reduction="mean")(batch), rows.mean())
    torch.testing.assert_close(as_loss(folder, loss_reduction="sum")(batch), rows.sum())


def test_a_weighted_loss_is_the_weighted_mean_of_the_scores(folder, batch):
    weight = torch.tensor([[1.0], [0.0], [3.0]])
    rows = as_loss(folder, loss_reduction="none")(batch)
    torch.testing.assert_close(as_loss(folder, loss_weight=weight)(batch), (rows * weight).sum() / 4)


# ---- what it accepts


def test_pyiqa_refuses_values_outside_the_range_before_we_see_them(metric, batch):
    with pytest.raises(AssertionError, match=r"normalized to \[0, 1\]"):
        metric(batch * 255)


@pytest.mark.parametrize("shape", [(3, 96, 128), (1, 4, 96, 128), (1, 2, 96, 128)])
def test_pyiqa_refuses_other_shapes_before_we_see_them(metric, shape):
    with pytest.raises(AssertionError, match="Input must be"):
        metric(torch.zeros(shape))


def test_a_wrong_number_of_channels_given_to_the_network_itself_is_an_image_error(metric):
    with pytest.raises(qsit.ImageError, match="channels"):
        metric.net(torch.zeros(1, 5, 96, 128))


def test_a_reference_image_changes_nothing(metric, batch):
    assert torch.equal(metric(batch, batch.flip(0)), metric(batch))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
def test_each_of_the_256_pixel_values_survives_the_way_through_a_tensor(metric, pixels, dtype, tmp_path):
    Image.fromarray(pixels).save(tmp_path / "all.png")
    assert torch.equal(metric.net(as_tensor(pixels).to(dtype)), metric(str(tmp_path / "all.png")))


def test_one_step_of_one_pixel_is_not_lost(metric, pixels):
    nudged = pixels.copy()
    nudged[40, 50, 1] += 1 if nudged[40, 50, 1] < 255 else -1
    before, after = (metric.net(as_tensor(image), return_dist=True) for image in (pixels, nudged))
    assert not torch.equal(before, after)  # of the five levels: their weighted sum may round to the same number


def test_a_gray_file_scores_like_its_tensor_of_one_channel(metric, pixels, tmp_path):
    Image.fromarray(pixels[..., 0]).save(tmp_path / "gray.png")
    assert torch.equal(metric(str(tmp_path / "gray.png")), metric(as_tensor(pixels[..., 0])))


def test_an_rgba_file_scores_like_its_colours_alone(metric, pixels, tmp_path):
    alpha = np.random.default_rng(1).integers(0, 256, pixels.shape[:2], dtype=np.uint8)
    Image.fromarray(np.dstack([pixels, alpha]), "RGBA").save(tmp_path / "rgba.png")
    assert torch.equal(metric(str(tmp_path / "rgba.png")), metric(as_tensor(pixels)))


def test_a_palette_file_scores_like_its_colours(metric, pixels, tmp_path):
    picture = Image.fromarray(pixels).quantize(64)
    picture.save(tmp_path / "palette.png")
    assert torch.equal(metric(str(tmp_path / "palette.png")), metric(as_tensor(np.asarray(picture.convert("RGB")))))


def test_the_order_of_the_memory_does_not_matter(metric, batch):
    assert torch.equal(metric(batch.contiguous(memory_format=torch.channels_last)), metric(batch))


def test_the_input_is_left_as_it_was(metric, batch):
    before = batch.clone()
    metric(batch)
    assert torch.equal(batch, before)


def test_a_list_of_files_pictures_and_tensors_of_any_size_is_explained_one_by_one(metric, pixels, tmp_path):
    picture = Image.fromarray(pixels)
    picture.save(tmp_path / "all.png")
    mixed = [tmp_path / "all.png", picture.resize((61, 200)), as_tensor(pixels)[0]]
    answers = metric.net.explain(mixed, max_new_tokens=4)
    assert answers == [metric.net.explain(item, max_new_tokens=4) for item in mixed]


# ---- that it says the same again


def test_asking_twice_gives_the_same_number(metric, batch):
    assert torch.equal(metric(batch), metric(batch))


def test_two_metrics_of_one_checkpoint_agree_whatever_the_seeds_are(folder, metric, batch):
    with torch.random.fork_rng():
        torch.manual_seed(1234)
        assert torch.equal(create(folder, seed=1)(batch), metric(batch))


def test_the_place_in_a_batch_does_not_matter(metric, batch):
    assert len(metric(batch).unique()) == 3
    torch.testing.assert_close(metric(batch.flip(0)), metric(batch).flip(0), atol=1e-5, rtol=0)


def test_training_mode_changes_no_score(folder, metric, batch):
    assert torch.equal(create(folder).train()(batch), metric(batch))


def test_a_copy_scores_like_the_original_and_holds_weights_of_its_own(metric, batch):
    twin = copy.deepcopy(metric)
    assert torch.equal(twin(batch), metric(batch))
    assert twin.net.core.checkpoint.model is twin.net.weights is not metric.net.weights


# ---- where its weights are


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_a_metric_that_is_moved_to_another_type_scores_in_it_and_answers_in_float32(folder, metric, batch, dtype):
    moved = create(folder, dtype="float32").to(dtype)
    result = moved(batch)
    assert moved.net.core.dtype == dtype
    assert result.dtype == torch.float32
    torch.testing.assert_close(result, metric(batch), atol=0.05 if dtype == torch.bfloat16 else 1e-4, rtol=0)


def test_moving_to_the_device_it_is_on_opens_nothing_again(folder):
    metric = create(folder)
    weights = metric.net.weights
    assert metric.to("cpu").net.weights is weights


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_an_input_on_another_device_than_the_weights_is_brought_there(folder, metric, batch):
    """pyiqa notes its device at creation and does not follow a later move: it hands the input to the old one."""
    moved = create(folder, dtype="float32").to("cuda")
    for images in (batch, batch.cuda()):
        torch.testing.assert_close(moved(images).cpu(), metric(batch), atol=1e-3, rtol=0)


# ---- pyiqa's command


def test_the_pyiqa_command_scores_a_photo(nano, pixels, tmp_path, monkeypatch, capsys):
    from pyiqa.pyiqa_cmd import main

    Image.fromarray(pixels).save(tmp_path / "all.png")
    monkeypatch.setattr(
        "sys.argv", ["pyiqa", "qsit-nano", "-t", str(tmp_path / "all.png"), "--device", str(nano.device)]
    )
    main()
    printed = float(capsys.readouterr().out.rsplit("'mean':", 1)[1].split("(")[-1].strip(" {}()\n"))
    assert printed == np.float32(nano.score(tmp_path / "all.png").value)
