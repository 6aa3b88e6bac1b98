"""Which engine runs a checkpoint, and what is said where the named one cannot."""

from __future__ import annotations

import json
import logging
import sys
from dataclasses import fields

import numpy as np
import pytest
import torch

import qsit_plugin as qsit
from qsit_plugin.checkpoint.onnx_record import DECODER, VISION, OnnxRecord, _checksum
from qsit_plugin.engines.choice import choose_engine
from tests.conftest import NANO
from tests.tiny import tiny_checkpoint

RECORD = [field.name for field in fields(OnnxRecord)]
EXPORT = "run: qsit weights export .* --onnx"


def edit(path, **changes) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(content | changes), encoding="utf-8")


@pytest.mark.parametrize("dtype", ["auto", "float32", torch.float32])
@pytest.mark.parametrize("device", ["cpu", torch.device("cpu")])
def test_auto_takes_graphs_that_fit_their_weights_on_a_cpu_in_float32(small_folder, device, dtype):
    assert choose_engine("auto", small_folder, device=device, dtype=dtype) == "onnx"


@pytest.mark.parametrize(
    "asked",
    [
        {"device": "cuda"},
        {"dtype": "bfloat16"},
        {"dtype": torch.float16},
        {"adapter": "somewhere"},
        {"quantization": "8bit"},
    ],
)
def test_auto_takes_torch_where_something_else_was_asked_for_and_a_named_engine_says_so(small_folder, asked):
    assert choose_engine("auto", small_folder, **{"device": "cpu", **asked}) == "torch"
    with pytest.raises(ValueError, match="engine 'onnx' runs on a CPU in float32: .*engine 'torch'"):
        choose_engine("onnx", small_folder, **asked)


def test_torch_is_taken_without_graphs_and_the_named_engine_says_how_to_make_them(tmp_path):
    folder = tiny_checkpoint(tmp_path / "plain", official=False)
    assert choose_engine("auto", folder, device="cpu") == "torch"
    with pytest.raises(qsit.WeightsError, match=f"has no ONNX graphs .*{EXPORT}"):
        qsit.load(folder, engine="onnx")


def test_a_named_torch_engine_is_never_replaced(small_folder):
    assert qsit.load(small_folder, engine="torch", device="cpu").engine.name == "torch"


def test_an_unknown_engine_is_refused_with_the_known_ones(small_folder):
    with pytest.raises(ValueError, match="engine 'vllm' is unknown; give one of auto, torch, onnx"):
        qsit.load(small_folder, engine="vllm")


def test_without_onnxruntime_auto_takes_torch_and_the_named_engine_says_how_to_install_it(small_folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert choose_engine("auto", small_folder, device="cpu") == "torch"
    with pytest.raises(ModuleNotFoundError, match=r"engine 'onnx' needs onnxruntime, .*qsit-plugin\[onnx\]"):
        choose_engine("onnx", small_folder)


@pytest.mark.parametrize(
    ("file", "changes"),
    [
        ("qsit.json", {"scope": "my raters"}),
        ("config.json", {"image_token_index": 4}),
        ("tokenizer_config.json", {"model_max_length": 5}),
        ("preprocessor_config.json", {"image_mean": [0.4, 0.4, 0.4]}),
    ],
)
def test_a_checkpoint_that_changed_after_the_export_is_refused_and_auto_warns(small_folder, file, changes, caplog):
    edit(small_folder / file, **changes)
    with pytest.raises(qsit.WeightsError, match=f"have changed since they were exported; {EXPORT}"):
        qsit.load(small_folder, engine="onnx")
    with caplog.at_level(logging.WARNING, "qsit_plugin"):
        assert choose_engine("auto", small_folder, device="cpu") == "torch"
    assert "Going on with torch" in caplog.text


def test_weights_of_another_training_are_refused(small_folder, tmp_path):
    other = tiny_checkpoint(tmp_path / "other", official=False, tie=False, seed=1)
    (small_folder / "model.safetensors").write_bytes((other / "model.safetensors").read_bytes())
    with pytest.raises(qsit.WeightsError, match=f"do not belong to it: .*{EXPORT}"):
        qsit.load(small_folder, engine="onnx")


def test_a_graph_of_another_export_is_refused(small_folder):
    (small_folder / VISION).write_bytes((small_folder / DECODER).read_bytes())
    with pytest.raises(qsit.WeightsError, match=f"vision.onnx is not the graph that onnx.json describes; {EXPORT}"):
        qsit.load(small_folder, engine="onnx")


@pytest.mark.parametrize("changes", [{"layers": 1}, {"context": 100}, {"format": 0}, {"unknown": 1}])
def test_a_damaged_record_is_refused_with_the_cure(small_folder, changes):
    edit(small_folder / "onnx.json", **changes)
    with pytest.raises(qsit.WeightsError, match=f"onnx.json was .*{EXPORT}"):
        qsit.load(small_folder, engine="onnx")


HOSTILE = {
    **{
        f"{name} is {short}": {name: value}
        for name in RECORD
        for short, value in {"null": None, "a list": [[]]}.items()
    },
    "too many layers": {"layers": 50},
    "a cache of another shape": {"head_size": 6},
    "a small vocabulary": {"vocabulary": 5},
    "an embedding of another tensor": {"embedding": "image_newline"},
    "a newline of another tensor": {"newline": "language_model.model.embed_tokens.weight"},
    "a template that loops": {"chat_template": "{% for i in range(9**9) %}{{ i }}{% endfor %}"},
    "no weights": {"weights": {"vision.onnx": [], "decoder.onnx": []}},
    "weights by number": {"weights": {"vision.onnx": [1], "decoder.onnx": [None]}},
}


@pytest.mark.parametrize("changes", HOSTILE.values(), ids=HOSTILE)
def test_a_record_that_was_made_to_do_harm_is_a_weights_error(small_folder, changes):
    """Its checksum is right: whoever writes such a file can compute one."""
    path = small_folder / "onnx.json"
    content = json.loads(path.read_text(encoding="utf-8")) | changes
    del content["checksum"]
    path.write_text(json.dumps(content | {"checksum": _checksum(content)}), encoding="utf-8")
    with pytest.raises(qsit.WeightsError, match="small|chat template"):
        qsit.load(small_folder, engine="onnx").explain(np.zeros((300, 200, 3), np.uint8), max_new_tokens=2)


def test_a_profile_of_another_tokenizer_is_refused(small_folder):
    with pytest.raises(qsit.ProfileError, match="belong to different checkpoints"):
        qsit.load(small_folder, engine="onnx", profile="official")


def test_the_graphs_of_the_embedded_model_belong_to_its_weights_and_are_taken():
    assert choose_engine("auto", NANO, device="cpu") == "onnx"
