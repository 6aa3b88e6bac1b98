"""``qsit weights export FOLDER --onnx``: what it writes, and what it refuses."""

from __future__ import annotations

import json
import shutil

import numpy as np
import onnx
import pytest
from PIL import Image
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

import qsit_plugin as qsit
from qsit_plugin.checkpoint import onnx_export
from qsit_plugin.checkpoint.onnx_export import export_onnx
from tests.tiny import tiny_checkpoint

PICTURE = np.random.default_rng(0).integers(0, 256, (90, 140, 3), dtype=np.uint8)
LINEAR = {"rope_type": "linear", "rope_theta": 1000000.0, "factor": 2.0}
FILES = ("vision.onnx", "decoder.onnx", "onnx.json")


@pytest.fixture
def folder(tmp_path):
    return tiny_checkpoint(tmp_path / "plain", official=False)


def command(*arguments):
    from qsit_plugin.cli.app import app

    return CliRunner().invoke(app, ["weights", "export", *map(str, arguments)], prog_name="qsit")


def test_the_command_writes_the_graphs_into_the_folder_and_prints_their_paths(folder):
    result = command(folder, "--onnx")
    assert result.exit_code == 0, result.output
    assert [line.split(" (")[0] for line in result.stdout.splitlines()] == [str(folder / name) for name in FILES]
    assert qsit.load(folder, device="cpu").engine.name == "onnx"


def test_the_form_must_be_named(folder):
    result = command(folder)
    assert result.exit_code == 2
    assert "give --onnx" in result.stderr


def test_the_graphs_of_the_embedded_model_hold_no_weights_and_are_small(nano_folder):
    assert sum((nano_folder / name).stat().st_size for name in FILES) < 2**20
    for name in FILES[:2]:
        graph = onnx.load(nano_folder / name, load_external_data=False).graph
        inside = [tensor for tensor in graph.initializer if tensor.data_location != onnx.TensorProto.EXTERNAL]
        assert sum(int(np.prod(tensor.dims)) for tensor in inside) < 500
        assert sum(node.op_type == "Attention" for node in graph.node) == {"vision.onnx": 6, "decoder.onnx": 4}[name]


def test_the_graphs_are_valid_onnx_of_opset_23(small_folder):
    for name in FILES[:2]:
        model = onnx.load(small_folder / name, load_external_data=False)
        assert [(one.domain, one.version) for one in model.opset_import] == [("", 23)]
        onnx.checker.check_model(small_folder / name)


def test_an_export_is_the_same_every_time(small_folder):
    before = {name: (small_folder / name).read_bytes() for name in FILES}
    export_onnx(small_folder)
    assert before == {name: (small_folder / name).read_bytes() for name in FILES}


def test_a_checkpoint_that_changed_fits_again_after_another_export(small_folder):
    profile = small_folder / "qsit.json"
    profile.write_text(json.dumps(json.loads(profile.read_text()) | {"scope": "my raters"}))
    export_onnx(small_folder)
    assert qsit.load(small_folder, engine="onnx").scope == "my raters"


def test_weights_that_are_too_many_for_a_cpu_are_refused_with_both_sizes(small_folder, monkeypatch):
    monkeypatch.setattr(onnx_export, "LARGEST", 1000)
    with pytest.raises(qsit.WeightsError, match="GB in float32 .*too many for the ONNX engine.*engine='torch'"):
        export_onnx(small_folder)
    assert (small_folder / "onnx.json").is_file(), "graphs of before are kept"


@pytest.mark.parametrize(
    ("part", "changes", "message"),
    [
        ("vision_config", {"hidden_act": "mish"}, "the activation 'mish' cannot be exported; those that can: gelu"),
        ("text_config", {"rope_scaling": LINEAR, "rope_parameters": LINEAR}, "of type 'linear' cannot be exported"),
    ],
)
def test_a_setting_without_an_operator_is_refused_by_name_and_leaves_no_graphs(folder, part, changes, message):
    path = folder / "config.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content[part] |= changes
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(qsit.WeightsError, match=message):
        export_onnx(folder)
    assert not [name for name in FILES if (folder / name).exists()]


def test_other_layers_of_the_vision_tower_are_exported_too(folder):
    path = folder / "config.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(content | {"vision_feature_layer": -2}), encoding="utf-8")
    export_onnx(folder)  # compares with torch
    assert qsit.load(folder, engine="onnx").score(np.zeros((50, 60, 3), np.uint8)).engine == "onnx"


def test_missing_packages_are_named_with_the_command(folder, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    with pytest.raises(ModuleNotFoundError, match="pip install onnx onnxruntime"):
        export_onnx(folder)


def test_the_layout_that_transformers_writes_is_exported_too(folder, tmp_path):
    import torch

    from qsit_plugin.checkpoint import open_checkpoint

    other = shutil.copytree(folder, tmp_path / "theirs")
    (other / "model.safetensors").unlink()
    model = open_checkpoint(folder, device=torch.device("cpu"), dtype=torch.bfloat16).model
    model.save_pretrained(other)
    try:
        expected = qsit.load(other, engine="torch", device="cpu", dtype="float32").score(PICTURE).value
    except qsit.WeightsError as error:
        pytest.skip(f"this transformers does not read what it writes: {error}")
    export_onnx(other)
    assert qsit.load(other, engine="onnx").score(PICTURE).value == pytest.approx(expected, abs=1e-5)


def test_a_checkpoint_in_several_files_is_read_from_all(folder):
    tensors = load_file(folder / "model.safetensors")
    parts = {"a.safetensors": dict(list(tensors.items())[::2]), "b.safetensors": dict(list(tensors.items())[1::2])}
    for name, part in parts.items():
        save_file(part, folder / name)
    mapping = {tensor: name for name, part in parts.items() for tensor in part}
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {"total_size": 1}, "weight_map": mapping}), encoding="utf-8"
    )
    export_onnx(folder)
    expected = qsit.load(folder, engine="torch", device="cpu").score(PICTURE).value
    assert qsit.load(folder, engine="onnx").score(PICTURE).value == pytest.approx(expected, abs=1e-5)


def test_golden_scores_are_checked_with_the_engine_that_was_chosen(small_folder):
    Image.fromarray(PICTURE).save(small_folder / "golden.png")
    golden = {"image": "golden.png", "logits": [0.0] * 5, "score": qsit.load(small_folder).score(PICTURE).value}
    (small_folder / "golden.json").write_text(json.dumps(golden), encoding="utf-8")
    assert qsit.load(small_folder, engine="onnx").engine.name == "onnx"
    golden["score"] = 1.0 - golden["score"] if abs(golden["score"] - 0.5) > 0.1 else 0.0
    (small_folder / "golden.json").write_text(json.dumps(golden), encoding="utf-8")
    with pytest.raises(qsit.WeightsError, match="golden.png scores"):
        qsit.load(small_folder, engine="onnx")


def test_a_checkpoint_that_is_saved_over_loses_its_graphs(small_folder):
    tiny_checkpoint(small_folder, official=False, seed=1)
    assert not [name for name in FILES if (small_folder / name).exists()]


def test_a_copy_of_the_folder_needs_no_other_export(small_folder, tmp_path):
    copy = shutil.copytree(small_folder, tmp_path / "elsewhere")
    assert qsit.load(copy, engine="onnx").name == "elsewhere"
