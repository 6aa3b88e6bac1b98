"""Answers to a list: written together, and what each image would get alone."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from PIL import Image

import qsit_plugin as qsit
from qsit_plugin.engines.batches import WRITING
from tests.tiny import tiny_checkpoint

SIZES = [(80, 60), (300, 200), (129, 127), (40, 300), (256, 256), (500, 90), (200, 150), (64, 64)]
TIE = 1e-4
"""Where the two likeliest tokens lie closer than this, rounding may decide between them."""


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return qsit.load(tiny_checkpoint(tmp_path_factory.mktemp("tiny") / "checkpoint", official=False), device="cpu")


def noise(count: int) -> list[Image.Image]:
    rng = np.random.default_rng(0)
    sizes = itertools.islice(itertools.cycle(SIZES), count)
    return [Image.fromarray(rng.integers(0, 256, (h, w, 3), dtype=np.uint8)) for w, h in sizes]


def steps(model) -> list[int]:
    """Rows of every pass through the head, by a real hook."""
    rows = []
    model.engine.hf.lm_head.register_forward_hook(lambda module, args, output: rows.append(output.shape[0]))
    return rows


def same_but_for_ties(model, image, question: str, together: str, alone: str) -> bool:
    """Whether two answers are one text, or part where the two likeliest tokens lie within TIE of each other."""
    if together == alone:
        return True
    prompt = model.prompt(question)
    decoder = model.engine.decoder([model.encode(image).prefix(prompt.before, model.engine)], prompt.after)
    token, written = None, []
    while True:
        (token,), _ = decoder.step(None if token is None else [token])
        written.append(token)
        best = decoder._logits[0].topk(2).values
        if best[0] - best[1] < TIE:
            return True
        if not together.startswith(model.conversation.decode(written).strip()):
            return False


def test_greedy_texts_on_200_prompts_are_those_of_the_images_one_by_one(model):
    pictures = noise(40)
    for question in ("Is it blurry?", "Is it noisy?", "Why?", "What is wrong with this image?", "Which distortion?"):
        together = model.ask(pictures, question, max_new_tokens=6)
        for picture, answer in zip(pictures, together, strict=True):
            alone = model.ask(picture, question, max_new_tokens=6)
            assert same_but_for_ties(model, picture, question, answer.text, alone.text), question


@pytest.mark.slow
def test_greedy_texts_of_the_embedded_model_on_200_prompts_are_those_of_the_images_one_by_one(nano_torch):
    for number, picture in enumerate(pictures := [p.resize((3 * p.width, 3 * p.height)) for p in noise(40)]):
        pictures[number] = Image.blend(picture, Image.new("RGB", picture.size, (90, 120, 150)), 0.7)
    for question in ("Is it blurry?", "Is it noisy?", "Why?", qsit.protocol.EXPLAIN, "Which distortion is visible?"):
        together = nano_torch.ask(pictures, question)
        for picture, answer in zip(pictures, together, strict=True):
            alone = nano_torch.ask(picture, question)
            assert same_but_for_ties(nano_torch, picture, question, answer.text, alone.text), question


def test_the_embedded_model_writes_the_same_together(nano):
    pictures = [
        Image.effect_noise((300, 200), sigma).convert("RGB").resize((w, h)) for sigma in (5, 90) for w, h in SIZES
    ]
    together = nano.explain(pictures)
    assert len({answer.text for answer in together}) > 1, "the pictures must differ, else this test proves nothing"
    assert together == [nano.explain(picture) for picture in pictures]


def test_a_step_reads_one_token_of_every_row_that_still_writes(tmp_path):
    model = qsit.load(tiny_checkpoint(tmp_path, official=False), device="cpu")
    rows = steps(model)
    answers = model.ask(noise(5), "Why?", max_new_tokens=4)
    lengths = [answer.tokens + (answer.finish_reason == "stop") for answer in answers]
    assert rows == [sum(length > step for length in lengths) for step in range(max(lengths))]


def test_no_more_than_the_budget_are_written_together(tmp_path):
    model = qsit.load(tiny_checkpoint(tmp_path, official=False), device="cpu")
    rows = steps(model)
    assert len(model.ask(noise(WRITING.images + 3), "Why?", max_new_tokens=1)) == WRITING.images + 3
    assert rows == [WRITING.images, 3]


def test_a_row_that_is_cancelled_ends_and_the_others_go_on(model):
    """``cancel`` is called for each answer in turn: the second call of every round is the second answer's."""
    pictures, calls = noise(3), itertools.count()
    whole = model.ask(pictures, "Why?", max_new_tokens=6)
    assert {answer.finish_reason for answer in whole} == {"length"}, "else the rounds are not of three"
    answers = model.ask(pictures, "Why?", max_new_tokens=6, cancel=lambda: next(calls) == 4)
    assert [answer.finish_reason for answer in answers] == ["length", "cancelled", "length"]
    assert (answers[1].tokens, answers[0], answers[2]) == (1, whole[0], whole[2])


def test_cancel_is_asked_before_each_image_is_read(tmp_path):
    model, passes = qsit.load(tiny_checkpoint(tmp_path, official=False), device="cpu"), []
    model.engine._tower.embeddings.register_forward_hook(lambda *_: passes.append(1))
    answers = model.ask(noise(1) * 5, "Why?", cancel=lambda: len(passes) >= 2)
    assert (len(passes), {answer.finish_reason for answer in answers}) == (2, {"cancelled"})


def test_a_seed_gives_each_image_the_same_text_alone_and_in_a_list(model):
    pictures = noise(3)
    options = {"temperature": 2.0, "seed": 7, "max_new_tokens": 8}
    assert model.ask(pictures, "Why?", **options) == [model.ask(picture, "Why?", **options) for picture in pictures]


def test_looks_and_images_are_written_together(model):
    pictures = noise(3)
    mixed = [pictures[0], model.encode(pictures[1]), pictures[2]]
    assert model.ask(mixed, "Why?", max_new_tokens=5) == model.ask(pictures, "Why?", max_new_tokens=5)


def test_a_bad_image_leaves_the_others_their_answers(model):
    first, second = noise(2)
    found = list(model.iter_answers([first, b"no image", second], "Why?", errors="return", max_new_tokens=3))
    assert isinstance(found[1], qsit.ImageError)
    assert [found[0], found[2]] == model.ask([first, second], "Why?", max_new_tokens=3)
    with pytest.raises(qsit.ImageError, match="bytes"):
        model.ask([first, b"no image", second], "Why?")


def test_out_of_memory_halves_the_rows_and_changes_no_text(tmp_path):
    model = qsit.load(tiny_checkpoint(tmp_path, official=False), device="cpu")
    pictures = noise(7)
    expected = model.ask(pictures, "Why?", max_new_tokens=4)

    def check(module, args):
        if len(args[0]) > 2:
            raise torch.OutOfMemoryError("out of memory")

    model.engine.hf.lm_head.register_forward_pre_hook(check)
    assert model.ask(pictures, "Why?", max_new_tokens=4) == expected


def test_a_list_without_images_has_no_answers(model):
    assert model.ask([], "Why?") == []
