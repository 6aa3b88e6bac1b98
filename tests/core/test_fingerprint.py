"""The fingerprint of weights: what it depends on, what carries it, and what it says once weights have changed."""

import copy
import json
import pickle
import re
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import qsit_plugin
from qsit_plugin.weights import WeightsError
from qsit_plugin.weights.fingerprint import UNSAVED, fingerprint
from tests.conftest import NANO
from tests.tiny import tiny_checkpoint

SMALL, LARGE = torch.arange(8.0), torch.arange(40_000.0).reshape(200, 200)


def store(folder: Path, **weights: torch.Tensor) -> Path:
    folder.mkdir(exist_ok=True)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def changed(tensor: torch.Tensor, place: int) -> torch.Tensor:
    other = tensor.clone()
    other.view(-1)[place] += 1
    return other


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_checkpoint(tmp_path_factory.mktemp("fingerprint") / "tiny", official=False)


@pytest.fixture
def own(folder, tmp_path):
    return Path(shutil.copytree(folder, tmp_path / "own"))


@pytest.fixture(scope="module")
def picture():
    return Image.effect_noise((90, 70), 60).convert("RGB")


# ---- of files ----


def test_it_is_twelve_hexadecimal_digits_that_do_not_depend_on_the_place(tmp_path):
    first = fingerprint(store(tmp_path / "a", x=SMALL, y=LARGE))
    assert re.fullmatch("[0-9a-f]{12}", first)
    assert fingerprint(store(tmp_path / "b", y=LARGE, x=SMALL)) == first


@pytest.mark.parametrize(
    "weights",
    [
        {"x": changed(SMALL, 3), "y": LARGE},
        {"x": SMALL, "y": changed(LARGE, 0)},
        {"x": SMALL, "y": changed(LARGE, 39_999)},
        {"x": SMALL, "y": LARGE + 1},
        {"x": SMALL, "z": LARGE},
        {"x": SMALL, "y": LARGE.reshape(100, 400)},
        {"x": SMALL.to(torch.bfloat16), "y": LARGE},
        {"x": SMALL.view(torch.int32), "y": LARGE},
        {"x": SMALL},
    ],
    ids=["value", "first value", "last value", "all values", "name", "shape", "dtype", "same bytes", "count"],
)
def test_other_weights_have_another_one(tmp_path, weights):
    assert fingerprint(store(tmp_path / "b", **weights)) != fingerprint(store(tmp_path / "a", x=SMALL, y=LARGE))


def test_of_a_large_tensor_only_samples_are_read_so_that_one_number_between_them_escapes(tmp_path):
    """As its docstring says: what it tells apart is training, not damage."""
    first = fingerprint(store(tmp_path / "a", y=LARGE))
    assert fingerprint(store(tmp_path / "b", y=changed(LARGE, 1_000))) == first


def test_shards_and_files_beside_the_weights_do_not_matter(own):
    before = fingerprint(own)
    weights = load_file(own / "model.safetensors")
    (own / "model.safetensors").unlink()
    (own / "qsit.json").unlink()
    names = sorted(weights)
    files = {"one.safetensors": names[::2], "two.safetensors": names[1::2]}
    for file, held in files.items():
        save_file({name: weights[name] for name in held}, own / file, metadata={"format": "pt"})
    index = {"weight_map": {name: file for file, held in files.items() for name in held}}
    (own / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    assert fingerprint(own) == before


def test_an_adapter_counts_by_its_tensors_and_its_strength_alone(tmp_path):
    base, adapter = store(tmp_path / "base", x=SMALL), tmp_path / "adapter"
    adapter.mkdir()

    def with_adapter(weight: torch.Tensor, **settings: object) -> str:
        save_file({"lora_A": weight}, adapter / "adapter_model.safetensors")
        (adapter / "adapter_config.json").write_text(json.dumps(settings), encoding="utf-8")
        return fingerprint(base, adapter)

    first = with_adapter(SMALL, r=4, lora_alpha=8)
    assert first != fingerprint(base)
    assert with_adapter(SMALL, r=4, lora_alpha=8, base_model_name_or_path="moved", use_dora=False) == first
    assert with_adapter(SMALL, r=4, lora_alpha=16) != first
    assert with_adapter(changed(SMALL, 0), r=4, lora_alpha=8) != first


def test_a_file_that_is_cut_off_or_missing_is_named(tmp_path):
    folder = store(tmp_path / "a", x=SMALL)
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:40])
    with pytest.raises(WeightsError, match="model.safetensors cannot be read"):
        fingerprint(folder)
    file.unlink()
    with pytest.raises(WeightsError, match="lacks model.safetensors"):
        fingerprint(folder)


# ---- of a model ----


def test_nano_has_that_of_its_file_and_its_scores_carry_it(nano, picture):
    score = nano.score(picture)
    assert nano.fingerprint == score.fingerprint == score.to_dict()["fingerprint"] == fingerprint(NANO)
    assert nano.encode(picture).score().fingerprint == nano.fingerprint


def test_a_model_has_that_of_its_weights_in_whatever_dtype_they_are_opened(folder, own):
    other = tiny_checkpoint(own.parent / "other", official=False, seed=1)
    opened = [qsit_plugin.load(folder, device="cpu", dtype=dtype) for dtype in ("float32", "bfloat16")]
    assert {model.fingerprint for model in opened} == {fingerprint(own)}
    assert qsit_plugin.load(other, device="cpu").fingerprint != fingerprint(own)


def test_weights_that_replace_those_of_an_opened_model_on_disk_are_not_taken_for_its_own(own):
    model = qsit_plugin.load(own, device="cpu")
    before = fingerprint(own)
    tiny_checkpoint(own.parent / "other", official=False, seed=1)
    shutil.copy(own.parent / "other" / "model.safetensors", own / "new.safetensors")
    (own / "new.safetensors").replace(own / "model.safetensors")
    assert model.fingerprint == before != fingerprint(own)


def test_a_model_whose_weights_were_changed_in_memory_does_not_claim_those_of_its_file(folder, picture):
    model = qsit_plugin.load(folder, device="cpu")
    before = model.score(picture)
    model.checkpoint.model.to(torch.float16).to(torch.float32)
    assert model.fingerprint == fingerprint(folder), "moving the weights is no change"
    with torch.no_grad():
        model.checkpoint.model.lm_head.weight.mul_(1.5)
    after = model.score(picture)
    assert (before.fingerprint, after.fingerprint, model.fingerprint) == (fingerprint(folder), UNSAVED, UNSAVED)


def test_a_training_step_is_such_a_change(folder):
    model = qsit_plugin.load(folder, device="cpu")
    weight = model.checkpoint.model.lm_head.weight.requires_grad_(True)
    weight.grad = torch.ones_like(weight)
    torch.optim.AdamW([weight], lr=1e-3).step()
    assert model.fingerprint == UNSAVED


@pytest.mark.parametrize("twin_of", [copy.deepcopy, lambda made: pickle.loads(pickle.dumps(made))])
def test_a_copy_says_what_the_original_says(folder, twin_of):
    checkpoint = qsit_plugin.load(folder, device="cpu").checkpoint
    twin = twin_of(checkpoint)
    assert twin.fingerprint == checkpoint.fingerprint == fingerprint(folder)
    with torch.no_grad():
        twin.model.lm_head.weight.add_(1)
    assert (twin.fingerprint, checkpoint.fingerprint) == (UNSAVED, fingerprint(folder))
    assert twin_of(twin).fingerprint == UNSAVED
