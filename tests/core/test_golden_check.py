"""A checkpoint that brings golden scores must give them, once for each state of its files."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import qsit_plugin
from qsit_plugin.engines.torch_engine import TorchEngine
from qsit_plugin.weights import WeightsError
from qsit_plugin.weights.verified import cache_folder, is_verified, remember, state
from tests.conftest import GRAPHS, NANO


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("QSIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def folder(tmp_path, cache):
    """A copy of nano with its golden values, without ONNX graphs."""
    return Path(shutil.copytree(NANO, tmp_path / "copy", ignore=shutil.ignore_patterns(*GRAPHS)))


@pytest.fixture
def passes(monkeypatch):
    """A list that grows with every batch that is read."""
    seen, read = [], TorchEngine.read
    monkeypatch.setattr(TorchEngine, "read", lambda *given: seen.append(1) or read(*given))
    return seen


def flip(folder):
    """Flip one bit of one number: the top one of its exponent. The number stays finite, about 1e36."""
    weights = load_file(folder / "model.safetensors")
    name = next(name for name in weights if name.endswith("layers.1.mlp.down_proj.weight"))
    bits = weights[name].view(torch.int16).flatten()
    bits[0] ^= 1 << 14
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def test_a_healthy_copy_is_scored_once_and_then_known(folder, cache, passes):
    qsit_plugin.load(folder)
    assert len(passes) == 2  # its two golden images
    qsit_plugin.load(folder)
    assert len(passes) == 2
    assert len(list((cache / "verified").iterdir())) == 1


def test_one_flipped_bit_is_an_error_at_every_load(folder):
    flip(folder)
    stored = json.loads((folder / "golden.json").read_text(encoding="utf-8"))["goldens"][0]["score"]
    for _ in range(2):
        with pytest.raises(
            WeightsError, match=f"is damaged: golden-astronaut.*scores 0.5000, not {stored:.4f} .*again"
        ):
            qsit_plugin.load(folder)
    assert qsit_plugin.load(folder, check_golden=False).name == "copy"


@pytest.mark.parametrize("exported", [False, True], ids=["graphs of before", "graphs of the flipped weights"])
def test_one_flipped_bit_is_an_error_also_where_there_are_onnx_graphs(tmp_path, cache, exported):
    pytest.importorskip("onnxruntime")
    folder = Path(shutil.copytree(NANO, tmp_path / "copy"))
    flip(folder)
    if exported:
        pytest.importorskip("onnx")
        from qsit_plugin.checkpoint.onnx_export import export_onnx

        export_onnx(folder)
    with pytest.raises(WeightsError, match="is damaged: golden-astronaut"):
        qsit_plugin.load(folder, device="cpu")


def test_files_that_changed_since_are_checked_again(folder, passes):
    qsit_plugin.load(folder)
    flip(folder)
    with pytest.raises(WeightsError, match="is damaged"):
        qsit_plugin.load(folder)


def test_a_cache_that_cannot_be_written_means_a_check_at_every_load(folder, cache, passes):
    cache.write_text("a file where the folder should be", encoding="utf-8")
    qsit_plugin.load(folder)
    qsit_plugin.load(folder)
    assert len(passes) == 4


def test_the_embedded_model_is_not_checked(passes):
    qsit_plugin.load("qsit-nano", engine="torch")
    qsit_plugin.load(NANO, engine="torch")
    assert passes == []


OPTIONS = [{"max_tiles": 1}, {"profile": NANO / "qsit.json"}, {"exif_rotation": True}]


@pytest.mark.parametrize("options", OPTIONS)
def test_where_golden_scores_do_not_hold_the_checkpoint_is_checked_without_the_options_once(folder, passes, options):
    qsit_plugin.load(folder, **options)
    qsit_plugin.load(folder, **options)
    assert len(passes) == 2


@pytest.mark.parametrize("options", OPTIONS)
def test_a_damaged_checkpoint_is_refused_whatever_the_options(folder, options):
    flip(folder)
    with pytest.raises(WeightsError, match="is damaged: golden-astronaut"):
        qsit_plugin.load(folder, **options)


def test_a_drift_that_rounding_does_not_explain_is_warned_of_at_every_load(folder, caplog):
    content = json.loads((folder / "golden.json").read_text(encoding="utf-8"))
    content["goldens"][0]["score"] -= 0.02
    (folder / "golden.json").write_text(json.dumps(content), encoding="utf-8")
    for _ in range(2):
        caplog.clear()
        qsit_plugin.load(folder)
        assert "more than rounding explains" in caplog.text


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_golden_scores_hold_in_other_dtypes(folder, dtype):
    assert qsit_plugin.load(folder, dtype=dtype).folder == folder


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "golden.json holds list"),
        ({"goldens": 5}, "goldens must be a list of at most 16"),
        ({"goldens": [{"image": None, "logits": [0] * 5, "score": 0.5}] * 17}, "at most 16"),
        ({"image": 5, "logits": [0] * 5, "score": 0.5}, "image must be the name of a file"),
        (
            {"image": "../copy/golden.png", "logits": [0] * 5, "score": 0.5},
            "image must be the name of a file",
        ),
        ({"image": None, "logits": 5, "score": 0.5}, "five logits"),
        ({"image": None, "logits": [0] * 5, "score": {}}, "five logits"),
        ({"image": None, "logits": [10**400] * 5, "score": 0.5}, "five logits"),
        ({"image": "config.json", "logits": [0] * 5, "score": 0.5}, "an image that cannot be read"),
    ],
)
def test_golden_values_that_cannot_be_read_are_an_error_that_names_the_file(folder, content, message):
    (folder / "golden.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(WeightsError, match=f"golden.json.*{message}|{message}"):
        qsit_plugin.load(folder)


def test_a_state_follows_name_size_and_time_of_every_file(folder):
    before = state(folder)
    assert state(folder) == before
    path = folder / "config.json"
    os.utime(path, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns + 10**9))
    later = state(folder)
    (folder / "README.md").write_text("shorter", encoding="utf-8")
    assert len({before, later, state(folder)}) == 3


def test_what_is_remembered_is_known_afterwards(cache):
    assert not is_verified("a" * 64)
    remember("a" * 64)
    assert is_verified("a" * 64)


def test_without_a_variable_the_cache_lies_in_the_users_own_place(monkeypatch):
    monkeypatch.delenv("QSIT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    monkeypatch.setenv("LOCALAPPDATA", "/somewhere")
    assert cache_folder().name in ("qsit", "cache")
    assert cache_folder() != Path("/somewhere")
