"""The tower imitates the teacher's maps: what lies where, what is never shown, and a run that is stopped."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file

from qsit_plugin.training.nano.human import imitation, teacher
from qsit_plugin.training.nano.human.efficientnet import EfficientNetLite0
from qsit_plugin.training.nano.tower import read_tower
from qsit_plugin.training.synthetic import photos


def crops(count: int = 2, side: int = 256) -> torch.Tensor:
    return torch.randint(0, 256, (count, side, side, 3), generator=torch.Generator().manual_seed(0)).byte()


@pytest.mark.parametrize("stride", [8, 16, 32])
def test_what_is_said_of_a_patch_lies_where_the_patch_is(stride):
    """Tokens that hold the means of their patch's cells, put on the grid, are the crop's own means."""
    cut = imitation.tiles(crops())
    cells = F.avg_pool2d(cut, min(stride, 16))
    tokens = F.pixel_unshuffle(cells, 16 // min(stride, 16)).flatten(2).transpose(1, 2)
    whole = F.avg_pool2d(crops().permute(0, 3, 1, 2).float() / 127.5 - 1, stride)
    assert torch.allclose(imitation.on_grid(tokens, 2, stride), whole, atol=1e-5)


def test_predictions_and_targets_have_one_shape():
    model, network = imitation.Imitator(0), EfficientNetLite0()
    with torch.no_grad():
        found, asked = model(crops()), model.targets(network(crops()))
    assert [f.shape for f in found] == [a.shape for a in asked]


def test_targets_are_standardised_by_channel():
    model, maps = imitation.Imitator(0), EfficientNetLite0()(crops())
    model.standardise([maps])
    for target in model.targets(maps):
        assert target.mean((0, 2, 3)).abs().max() < 1e-2
        assert target.std((0, 2, 3)).max() < 1.01


def test_photos_held_out_for_compression_faults_are_those_that_no_stage_trains_on():
    names = (Path(imitation.__file__).parent / "heldout_cid22.txt").read_text().split("\n")[:-1]
    assert len(names) == 35
    assert photos.split([Path(name) for name in names]) == ([], [Path(name) for name in names])


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    people, clean = tmp_path / "rated", tmp_path / "photos"
    people.mkdir(), clean.mkdir()
    rows = ["path,mos,std,split,subset,twin"]
    for n, pixels in enumerate(np.random.default_rng(0).integers(0, 256, (8, 128, 128, 3)).astype(np.uint8)):
        Image.fromarray(pixels).save((clean if n > 5 else people) / f"{n * 100}.png")
        rows += [f"{n * 100}.png,0.5,,{'test' if n == 5 else 'training'},ss01,0"] if n < 6 else []
    (people / "ratings.csv").write_text("\n".join(rows) + "\n")
    return people, clean


def test_neither_test_photos_nor_held_out_ones_are_shown(folders, tmp_path):
    people, clean = folders
    held = (Path(imitation.__file__).parent / "heldout_cid22.txt").read_text().split("\n")[0]
    Image.new("RGB", (128, 128)).save(clean / held)
    shown = {path.name for path in imitation.files_of(people, clean, tmp_path / "thumbnails.npz", 128)}
    assert "0.png" in shown
    assert not shown & {"500.png", held}


def test_a_stopped_imitation_goes_on_to_the_tower_of_an_uninterrupted_one(folders, tmp_path):
    torch.manual_seed(0)
    teacher.save(teacher.Teacher(EfficientNetLite0()), tmp_path / "teacher.safetensors")

    def run(name: str, *until: int) -> dict[str, torch.Tensor]:
        for steps in until:
            stage = imitation.ImitationStage(
                steps=steps, crops=1, side=128, teacher=str(tmp_path / "teacher.safetensors"), save_every=1
            )
            imitation.train(*folders, tmp_path / name, stage)
        return load_file(tmp_path / name)

    whole, stopped = run("whole.safetensors", 3), run("stopped.safetensors", 2, 3)
    assert all(torch.equal(whole[key], stopped[key]) for key in whole)
    assert (tmp_path / "whole.safetensors").stat().st_size < 6e6
    name = "encoder.layers.5.mlp.fc2.weight"
    assert torch.equal(read_tower(tmp_path / "whole.safetensors")[name], whole[name].float())
