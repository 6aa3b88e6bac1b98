"""What does not fit into the language model's context is refused before anything runs; an answer ends where it ends."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest
import torch
from PIL import Image

import qsit_plugin as qsit
from qsit_plugin.engines import gradients
from qsit_plugin.protocol import ScoreProfile
from tests.tiny import tiny_checkpoint

LONG = "is it blurry? " * 700
CONTEXT = 500
"""Of the checkpoint here; a picture of 300x200 has 208 tokens, one of 900x900 has 701."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tiny_checkpoint(tmp_path_factory.mktemp("tiny") / "checkpoint", official=False)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["text_config"]["max_position_embeddings"] = CONTEXT
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def model(folder):
    return qsit.load(folder, device="cpu")


@pytest.fixture(scope="module")
def picture():
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (200, 300, 3), dtype=np.uint8))


@pytest.fixture
def at_rest(model):
    """Fails the test if the vision tower or the language model ran."""
    inner, runs = model.engine.hf.model, []
    tower = getattr(inner.vision_tower, "vision_model", inner.vision_tower)
    hooks = [
        module.register_forward_pre_hook(lambda *_: runs.append(1))
        for module in (tower.embeddings, inner.language_model.layers[0].input_layernorm)
    ]
    yield
    for hook in hooks:
        hook.remove()
    assert not runs


ROUTES = {
    "ask": lambda model, picture: model.ask(picture, LONG),
    "stream": lambda model, picture: model.stream(picture, LONG),
    "choose": lambda model, picture: model.choose(picture, LONG, ["yes", "no"]),
    "long options": lambda model, picture: model.choose(picture, "Which?", ["noise", LONG]),
}


@pytest.mark.parametrize("route", ROUTES)
def test_a_question_longer_than_the_context_is_refused_with_both_numbers(model, picture, at_rest, route):
    with pytest.raises(
        qsit.ContextError, match=r"question has [\d,]+ tokens.*image 64, together.*at most 500: shorten"
    ):
        ROUTES[route](model, picture)


def test_a_question_that_a_large_image_leaves_no_room_for_is_asked_about_a_small_one(model, picture, at_rest):
    question = "is it blurry? " * 30
    text = len(model.prompt(question).before) + len(model.prompt(question).after)
    large = picture.resize((900, 900))
    tokens = model.engine.tiling.token_count(900, 900)
    assert text + model.engine.tiling.token_count(128, 128) <= CONTEXT < text + tokens
    message = f"question has {text} tokens.*image {tokens}, together {text + tokens:,}; checkpoint reads at most 500"
    with pytest.raises(qsit.ContextError, match=message):
        model.ask(large, question)


def test_the_small_one_gets_its_answer(model, picture):
    assert model.ask(picture.resize((60, 60)), "is it blurry? " * 30, max_new_tokens=2).tokens <= 2


def test_a_profile_that_is_too_long_is_refused_when_the_checkpoint_is_opened(folder):
    own = ScoreProfile.load(folder)
    with pytest.raises(qsit.WeightsError, match="reads at most 500"):
        qsit.load(folder, device="cpu", profile=ScoreProfile(LONG, *list(vars(own).values())[1:]))


def test_an_image_too_large_for_the_context_is_refused_by_every_way_to_a_score(model, picture):
    large = picture.resize((900, 900))
    ways = (
        lambda: model.score(large),
        lambda: model.score([large, b"no image"], errors="return"),
        lambda: model.encode(large).score(),
        lambda: model.level_logits(large),
        lambda: gradients.level_probabilities(model, [torch.rand(3, 900, 900)]),
    )
    for way in ways:
        with pytest.raises(qsit.ContextError, match="together"):
            way()


def test_an_answer_ends_at_the_end_of_the_context_and_says_length(model, picture):
    question = "is it blurry? " * 30
    small = picture.resize((60, 60))
    room = model.room(model.prompt(question), model.engine.tiling.token_count(60, 60))
    model_without_end = qsit.model.QSiT(model.checkpoint)
    model_without_end.stop_ids = frozenset()
    answer = model_without_end.ask(small, question, max_new_tokens=10_000, temperature=5.0, seed=1)
    assert 10 < room < CONTEXT
    assert (answer.tokens, answer.finish_reason) == (room + 1, "length"), "the last token is written and never read"


def test_a_question_that_just_fits_is_answered_with_one_token(model, picture):
    small, tokens = picture.resize((60, 60)), model.engine.tiling.token_count(60, 60)
    words = next(n for n in range(500) if _length(model, n + 1) + tokens > CONTEXT)
    assert CONTEXT - 3 <= _length(model, words) + tokens <= CONTEXT
    assert model.ask(small, "a" + " noise" * words, max_new_tokens=1).tokens <= 1
    with pytest.raises(qsit.ContextError):
        model.ask(small, "a" + " noise" * (words + 1))


def _length(model, words):
    prompt = model.conversation.prompt("a" + " noise" * words)
    return len(prompt.before) + len(prompt.after)


@pytest.mark.parametrize("question", ["is it blurry? " * 3572, "blurry" * 8334], ids=["words", "one word"])
def test_fifty_thousand_characters_are_refused_at_once(nano, picture, question):
    began = time.perf_counter()
    with pytest.raises(qsit.ContextError, match="qsit-nano reads at most 1,536"):
        nano.ask(picture, question)
    assert time.perf_counter() - began < 5


def test_the_embedded_model_refuses_the_question_that_it_answered_with_thethethe(nano, picture):
    with pytest.raises(qsit.ContextError, match="at most 1,536: shorten the question by"):
        nano.ask(picture, LONG)
