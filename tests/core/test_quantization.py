"""8-bit and 4-bit weights by bitsandbytes, on the CPU."""

import sys

import pytest
import torch
from PIL import Image
from torch import nn

import qsit_plugin
from tests.tiny import tiny_checkpoint


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_checkpoint(tmp_path_factory.mktemp("tiny") / "checkpoint", official=False, hidden=64)


@pytest.fixture(scope="module")
def picture():
    return Image.effect_noise((150, 110), 60).convert("RGB")


def test_an_unknown_kind_is_refused_before_anything_is_opened():
    with pytest.raises(ValueError, match="quantization '2bit' is unknown; give 8bit or 4bit"):
        qsit_plugin.load("no-such-checkpoint", quantization="2bit")


def test_without_bitsandbytes_the_error_names_the_cure(monkeypatch, folder):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(ModuleNotFoundError, match="4bit weights need bitsandbytes.*pip install bitsandbytes"):
        qsit_plugin.load(folder, quantization="4bit")


@pytest.mark.parametrize(("kind", "tolerance"), [("8bit", 0.02), ("4bit", 0.2)])
def test_scores_stay_near_those_of_full_weights_and_say_what_changed(folder, picture, kind, tolerance):
    pytest.importorskip("bitsandbytes")
    full = qsit_plugin.load(folder, device="cpu").score(picture)
    model = qsit_plugin.load(folder, device="cpu", quantization=kind)
    reduced = model.score(picture)
    assert (full.mode, reduced.mode) == ("released", f"{kind} weights")
    assert reduced.value != full.value
    assert model.fingerprint == reduced.fingerprint == full.fingerprint, "reducing the file's weights is no training"
    assert reduced.value == pytest.approx(full.value, abs=tolerance)


def test_only_the_language_models_linear_layers_are_replaced(folder):
    pytest.importorskip("bitsandbytes")
    model = qsit_plugin.load(folder, device="cpu", quantization="8bit").checkpoint.model
    text = [m for m in model.model.language_model.layers.modules() if isinstance(m, nn.Linear)]
    assert {m.weight.dtype for m in text} == {torch.int8}
    rest = [*model.model.vision_tower.modules(), *model.model.multi_modal_projector.modules(), model.lm_head]
    assert {m.weight.dtype for m in rest if isinstance(m, nn.Linear)} == {torch.float32}


def test_scoring_with_8_bit_weights_logs_and_warns_nothing(folder, picture, caplog, recwarn):
    pytest.importorskip("bitsandbytes")
    model = qsit_plugin.load(folder, device="cpu", quantization="8bit")
    caplog.clear()
    recwarn.clear()
    model.score(picture)
    assert (caplog.messages, [str(warning.message) for warning in recwarn]) == ([], [])


def test_the_8_bit_layers_of_others_go_on_warning(folder, picture, caplog):
    bitsandbytes = pytest.importorskip("bitsandbytes")
    qsit_plugin.load(folder, device="cpu", quantization="8bit").score(picture)
    caplog.clear()
    other = bitsandbytes.nn.Linear8bitLt(64, 64, has_fp16_weights=False, threshold=6.0).to("cpu").eval()
    other(torch.randn(2, 64))
    assert any("inputs will be cast" in message for message in caplog.messages)
