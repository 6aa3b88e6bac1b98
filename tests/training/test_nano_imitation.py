"""The tower learns from teacher, people and distortions: what lies where, what is asked of a crop, what is never shown,
and a run that is stopped."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file

from qsit_plugin.training.nano.human import crops as crops_module
from qsit_plugin.training.nano.human import grid, imitation, teacher
from qsit_plugin.training.nano.human.crops import UNRATED, CropBatches, Crops
from qsit_plugin.training.nano.human.efficientnet import EfficientNetLite0
from qsit_plugin.training.nano.human.rated import Rated
from qsit_plugin.training.nano.tower import load_result, read_tower
from qsit_plugin.training.synthetic import photos


def crops(count: int = 2, side: int = 256) -> torch.Tensor:
    return torch.randint(0, 256, (count, side, side, 3), generator=torch.Generator().manual_seed(0)).byte()


@pytest.mark.parametrize("stride", [8, 16, 32])
def test_what_is_said_of_a_patch_lies_where_the_patch_is(stride):
    """Tokens that hold the means of their patch's cells, put on the grid, are the crop's own means."""
    cut = grid.tiles(crops())
    cells = F.avg_pool2d(cut, min(stride, 16))
    tokens = F.pixel_unshuffle(cells, 16 // min(stride, 16)).flatten(2).transpose(1, 2)
    whole = F.avg_pool2d(crops().permute(0, 3, 1, 2).float() / 127.5 - 1, stride)
    assert torch.allclose(grid.on_grid(tokens, 2, stride), whole, atol=1e-5)


def test_predictions_and_targets_have_one_shape():
    model, network = imitation.Imitator(0), EfficientNetLite0()
    with torch.no_grad():
        (found, _), asked = model(crops()), model.targets(network(crops()))
    assert [f.shape for f in found] == [a.shape for a in asked]


def test_targets_are_standardised_by_channel():
    model, maps = imitation.Imitator(0), EfficientNetLite0()(crops())
    model.standardise([maps])
    for target in model.targets(maps):
        assert target.mean((0, 2, 3)).abs().max() < 1e-2
        assert target.std((0, 2, 3)).max() < 1.01


def asked(levels: list[float], whole: list[bool], graded: torch.Tensor | None) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    model, network = imitation.Imitator(0), EfficientNetLite0()
    batch = Crops(crops(len(levels), 128), torch.tensor(levels), torch.tensor(whole))
    with torch.no_grad():
        return imitation.losses_of(model, batch, network(batch.pixels), graded)


def test_of_a_distorted_photo_only_people_are_asked():
    graded = torch.tensor([[1.0, 0, 0, 0, 0], [0, 0, 0, 0, 1.0]])
    with_teacher, without = (asked([2.0, 3.0], [False, False], said) for said in (graded, None))
    assert with_teacher["levels"] == without["levels"]


def test_of_a_whole_photo_that_nobody_rated_the_teacher_is_asked():
    sure, nan = torch.tensor([[1.0, 0, 0, 0, 0]]), float("nan")
    assert asked([nan], [True], sure)["levels"] != asked([nan], [True], sure.flip(-1))["levels"]
    assert asked([nan], [True], None)["levels"] == 0


def test_of_a_distorted_photo_that_nobody_rated_no_level_is_asked():
    assert asked([float("nan")], [False], torch.ones(1, 5) / 5)["levels"] == 0


def photo_file(folder: Path, name: str, size: int = 160) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (size, size, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(folder / name)
    return folder / name


def test_crops_of_a_batch_are_of_one_subset(tmp_path):
    path = photo_file(tmp_path, "a.png")
    people = [Rated(path, 0.1 * n, "training", f"ss0{n}") for n in (1, 2)]
    for number in range(8):
        levels = CropBatches(people, 4, 128, seed=0)[number]
        assert len(set(levels.levels[levels.whole].tolist())) <= 1


def test_a_distortion_costs_a_crop_its_share_of_what_people_said(tmp_path, monkeypatch):
    monkeypatch.setattr(crops_module, "DISTORTED", 1.0)
    good = [Rated(photo_file(tmp_path, "a.png"), 0.9, "training", "ss01")]
    batch = CropBatches(good, 8, 128, seed=0)[0]
    assert not batch.whole.any()
    assert (batch.levels < 1 + 4 * 0.9).all() and (batch.levels >= 1).all()


def test_of_a_clean_photo_nobody_said_anything(tmp_path):
    clean = [Rated(photo_file(tmp_path, "a.png"), float("nan"), "training", UNRATED)]
    assert CropBatches(clean, 4, 128, seed=0)[0].levels.isnan().all()


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
    shown = {photo.path.name for photo in crops_module.photos_of(people, clean, tmp_path / "thumbnails.npz", 128)}
    assert "0.png" in shown
    assert not shown & {"500.png", held}


def test_a_stopped_imitation_goes_on_to_the_tower_of_an_uninterrupted_one(folders, tmp_path):
    torch.manual_seed(0)
    teacher.save(teacher.Teacher(EfficientNetLite0()), tmp_path / "teacher.safetensors")

    def run(name: str, *until: int) -> dict[str, torch.Tensor]:
        for steps in until:
            stage = imitation.ImitationStage(
                steps=steps, crops=1, side=128, views=4, teacher=str(tmp_path / "teacher.safetensors"), save_every=1
            )
            imitation.train(*folders, tmp_path / name, stage)
        return load_file(tmp_path / name)

    whole, stopped = run("whole.safetensors", 3), run("stopped.safetensors", 2, 3)
    assert all(torch.equal(whole[key], stopped[key]) for key in whole)
    assert (tmp_path / "whole.safetensors").stat().st_size < 6e6
    name = "encoder.layers.5.mlp.fc2.weight"
    assert torch.equal(read_tower(tmp_path / "whole.safetensors")[name], whole[name].float())
    assert torch.equal(load_result(tmp_path / "whole.safetensors").head.bias.detach(), whole["head.bias"].float())


def test_a_run_that_goes_on_from_a_result_has_its_tower_and_its_heads(tmp_path):
    first, second = imitation.Imitator(1), imitation.Imitator(2)
    imitation.save(first, tmp_path / "first.safetensors")
    imitation.begin(second, str(tmp_path / "first.safetensors"))
    for mine, other in ((first.levels, second.levels), (first.seer.head, second.seer.head)):
        assert torch.allclose(mine.weight, other.weight, atol=1e-2) and not torch.equal(mine.weight, other.weight)


def test_the_tower_in_the_repository_is_one_to_go_on_from():
    path = Path(imitation.__file__).parent / "tower.safetensors"
    model = imitation.Imitator(0)
    imitation.begin(model, str(path))
    assert path.stat().st_size < 6e6
    assert torch.equal(load_result(path).head.weight, model.seer.head.weight)
    with torch.no_grad():
        maps, levels = model(crops())
    assert levels.isfinite().all() and all(found.isfinite().all() for found in maps)
