"""Several threads calling one model get the answers that one thread gets."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image

import qsit_plugin as qsit
from tests.tiny import tiny_checkpoint

THREADS = 4


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return qsit.load(tiny_checkpoint(tmp_path_factory.mktemp("tiny"), official=False), device="cpu")


@pytest.fixture(scope="module")
def pictures():
    rng = np.random.default_rng(0)
    sizes = [(80, 60), (300, 200), (129, 127), (40, 300)]
    return [Image.fromarray(rng.integers(0, 256, (h, w, 3), dtype=np.uint8)) for w, h in sizes]


def everything(model, picture, number):
    """Score, batch, answer, choice, description: texts and values rounded to what float32 keeps."""
    look = model.encode(picture)
    return (
        [round(score.value, 5) for score in (model.score(picture), look.score(), *model.score([picture] * 2))],
        model.ask(picture, f"Is it blurry, case {number}?", max_new_tokens=6).text,
        look.explain(max_new_tokens=6).text,
        [round(value, 5) for value in look.choose("Which?", ["noise", "blur"])],
    )


def together(work, count):
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(work, range(count)))


def test_threads_with_images_of_their_own_get_what_one_thread_gets(model, pictures):
    alone = [everything(model, picture, number) for number, picture in enumerate(pictures)]
    assert len({str(result) for result in alone}) == len(pictures), "the pictures must differ, else this proves nothing"
    model._prompts.clear()
    assert together(lambda i: everything(model, pictures[i % 4], i % 4), 8) == alone * 2


def test_threads_that_share_one_look_get_what_one_thread_gets(model, pictures):
    questions = ["Is it blurry?", "Is it noisy?", "What is wrong?", "Is it dark?"]
    alone = [model.encode(pictures[1]).ask(question, max_new_tokens=6).text for question in questions]
    look = model.encode(pictures[1])
    assert together(lambda i: look.ask(questions[i % 4], max_new_tokens=6).text, 8) == alone * 2


def test_threads_with_questions_of_their_own_get_the_same_tokens(model):
    asked = [f"Is it blurry, case {number}?" for number in range(600)]  # more than the model remembers
    alone = [model.conversation.prompt(question) for question in asked]
    assert together(lambda i: model.prompt(asked[i]), 600) == alone


def test_threads_that_open_checkpoints_get_whole_ones_and_leave_torchs_default_dtype(tmp_path):
    """transformers sets torch's default dtype, and what it initialises, for the whole process while it opens one."""
    folder, dtypes = tiny_checkpoint(tmp_path, official=False), ["float32", "bfloat16", "float16"] * 3
    with ThreadPoolExecutor(len(dtypes)) as pool:
        opened = list(pool.map(lambda dtype: qsit.load(folder, device="cpu", dtype=dtype), dtypes))
    assert [str(model.dtype) for model in opened] == [f"torch.{dtype}" for dtype in dtypes]
    assert torch.get_default_dtype() == torch.float32


def test_threads_that_overflow_at_once_share_one_second_engine(tmp_path, pictures):
    model = qsit.load(tiny_checkpoint(tmp_path, official=False), device="cpu", dtype="float16")
    with ThreadPoolExecutor(THREADS) as pool:
        engines = list(pool.map(lambda _: model.bfloat16_engine(), range(THREADS)))
    assert len(set(engines)) == 1
