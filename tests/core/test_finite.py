"""Logits that are not finite: every read says so, or is read again in bfloat16 where the dtype was left to us."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import qsit_plugin as qsit
from qsit_plugin.engines import gradients
from qsit_plugin.engines.batches import open_item
from qsit_plugin.engines.finite import OVERFLOWED
from qsit_plugin.engines.generation import Row, write
from qsit_plugin.model import QSiT
from tests.tiny import tiny_checkpoint

NORM = "language_model.model.norm.weight"
OPTIONS = ["noise", "blur", "banding"]


def changed(folder, value):
    """A tiny checkpoint whose last norm holds one value everywhere."""
    folder = tiny_checkpoint(folder, official=False)
    set_norm(folder, value)
    return folder


def set_norm(folder, value):
    file = folder / "model.safetensors"
    weights = load_file(file)
    (norm,) = [name for name in weights if name.endswith(NORM)]
    weights[norm] = torch.full_like(weights[norm], value)
    save_file(weights, file, metadata={"format": "pt"})


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """Hidden states that leave float16's range (65,504)."""
    return changed(tmp_path_factory.mktemp("large") / "checkpoint", 6e4)


@pytest.fixture(scope="module")
def broken(tmp_path_factory):
    """Weights that are finite, as those that are not are refused at load, and whose logits leave float32's range."""
    return changed(tmp_path_factory.mktemp("broken") / "checkpoint", 3e38)


@pytest.fixture(scope="module")
def picture():
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8))


ROUTES = {
    "score": lambda model, picture: model.score(picture),
    "a look's score": lambda model, picture: model.encode(picture).score(),
    "level_logits": lambda model, picture: model.level_logits(picture),
    "choose": lambda model, picture: model.choose(picture, "Which?", OPTIONS),
    "attributes": lambda model, picture: model.attributes(picture),
    "ask": lambda model, picture: model.ask(picture, "Why?", max_new_tokens=3),
    "explain": lambda model, picture: model.explain(picture, max_new_tokens=3),
    "stream": lambda model, picture: list(model.stream(picture, max_new_tokens=3)),
    "quality_map": lambda model, picture: model.quality_map(picture, window=60),
    "gradients": lambda model, picture: gradients.level_probabilities(model, [torch.rand(3, 60, 80)]),
}
each = pytest.mark.parametrize("route", ROUTES)


def written_row(model, picture, tokens) -> Row:
    """An answer to "Why?", with what it was written by."""
    prompt = model.prompt("Why?")
    row = model._row(open_item(model, prompt, picture), prompt, max_new_tokens=tokens)
    list(write([row], prompt))
    return row


def automatic(folder) -> QSiT:
    """As device="cuda", dtype="auto" would open it."""
    return QSiT(qsit.load(folder, device="cpu", dtype="float16").checkpoint, automatic_dtype=True)


@each
def test_an_overflow_in_a_dtype_that_was_chosen_is_an_error_with_the_cure(large, picture, route):
    model = qsit.load(large, device="cpu", dtype="float16")
    with pytest.raises(FloatingPointError, match="not finite in float16: load it with dtype='bfloat16'"):
        ROUTES[route](model, picture)


@each
def test_damaged_weights_are_a_weights_error_in_every_dtype(broken, picture, route):
    with pytest.raises(qsit.WeightsError, match="not finite in float32.*weights are damaged"):
        ROUTES[route](qsit.load(broken, device="cpu"), picture)


def test_damaged_weights_are_an_error_after_the_second_reading_too(tmp_path, large, picture):
    folder = tmp_path / "checkpoint"
    shutil.copytree(large, folder)
    model = automatic(folder)
    set_norm(folder, 3e38)  # damaged between the first opening and the second
    with pytest.raises(qsit.WeightsError, match="not finite in bfloat16.*weights are damaged"):
        model.score(picture)


@each
def test_where_the_dtype_was_left_to_us_each_route_reads_again_in_bfloat16(large, picture, route, caplog):
    ROUTES[route](automatic(large), picture)
    assert "float16 overflowed" in caplog.text


def test_what_is_read_again_equals_what_bfloat16_says_and_says_so(large, picture):
    again, exact = automatic(large), qsit.load(large, device="cpu", dtype="bfloat16")
    assert again.choose(picture, "Which?", OPTIONS) == exact.choose(picture, "Which?", OPTIONS)
    assert again.attributes(picture) == exact.attributes(picture)
    answer, expected = (model.ask(picture, "Why?", max_new_tokens=8) for model in (again, exact))
    assert (answer.text, answer.mode) == (expected.text, OVERFLOWED)
    assert "".join(again.stream(picture, "Why?", max_new_tokens=8)).strip() == expected.text
    look = again.encode(picture)
    assert look.score().value == pytest.approx(exact.score(picture).value, abs=1e-2)
    assert look.choose("Which?", OPTIONS) == exact.choose(picture, "Which?", OPTIONS)


def test_an_answer_that_overflows_in_the_middle_keeps_what_is_written_and_goes_on_in_bfloat16(tmp_path, picture):
    folder = tiny_checkpoint(tmp_path / "sound", official=False)
    model, steps = automatic(folder), []

    def overflow(module, args, output):
        steps.append(1)
        return output * torch.inf if len(steps) == 4 else output

    model.engine.hf.lm_head.register_forward_hook(overflow)
    row = written_row(model, picture, 7)
    written = row.written
    assert (len(written), len(steps), row.engine.dtype_name) == (7, 4, "bfloat16")
    half, brain = (qsit.load(folder, device="cpu", dtype=dtype) for dtype in ("float16", "bfloat16"))
    assert written[:3] == written_row(half, picture, 3).written
    prompt = brain.prompt("Why?")
    decoder = brain.engine.decoder([brain.encode(picture).prefix(prompt.before, brain.engine)], prompt.after)
    likeliest = [decoder.step(None)[0][0], *(decoder.step([token])[0][0] for token in written[:-1])]
    assert written[3:] == likeliest[3:]


def test_in_a_batch_only_the_row_that_overflows_is_read_in_bfloat16(tmp_path, picture):
    model, steps = automatic(tiny_checkpoint(tmp_path / "sound", official=False)), []
    pictures = [picture, picture.rotate(90), picture.resize((200, 300))]
    alone = [model.ask(one, "Why?", max_new_tokens=6) for one in pictures]

    def overflow(module, args, output):
        steps.append(1)
        output = output.clone()
        output[1] *= torch.inf if len(steps) == 3 else 1.0
        return output

    hook = model.engine.hf.lm_head.register_forward_hook(overflow)
    together = model.ask(pictures, "Why?", max_new_tokens=6)
    hook.remove()
    assert [answer.mode for answer in together] == ["released", OVERFLOWED, "released"]
    assert [together[0], together[2]] == [alone[0], alone[2]]


def test_a_second_engine_is_asked_once_an_answer_not_once_a_token(large, picture, caplog):
    automatic(large).ask(picture, "Why?", max_new_tokens=6)
    assert caplog.text.count("float16 overflowed") == 1
