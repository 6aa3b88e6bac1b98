"""On the same weights, everything equals the released procedure through transformers' ``generate``."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

import qsit_plugin as qsit
from qsit_plugin.protocol import OFFICIAL, TRAINING_CONSISTENT
from qsit_plugin.scores import Score
from tests.core.reference import Released
from tests.tiny import QWEN_VOCABULARY, tiny_checkpoint

pytest.importorskip("torchvision", reason="transformers' own processor needs torchvision")

SIZES = [
    (32, 32), (33, 57), (100, 100), (128, 128), (129, 127), (200, 150), (224, 224), (256, 384), (300, 451), (384, 384),
    (385, 384), (500, 375), (512, 512), (640, 480), (810, 1080), (1000, 333), (1024, 768), (1500, 100), (40, 1200),
    (2000, 37), (17, 900), (3000, 2000),
]  # fmt: skip


def picture(width: int, height: int) -> Image.Image:
    """Smooth colours with some noise, different for every size."""
    rng = np.random.default_rng(width * 10_000 + height)
    small = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize((width, height))
    array = np.asarray(small, np.int16) + rng.integers(-20, 21, (height, width, 1))
    return Image.fromarray(array.clip(0, 255).astype(np.uint8))


@pytest.fixture(scope="module")
def official_tiny(tmp_path_factory):
    """Tiny random weights with the official processor settings and Qwen2's vocabulary."""
    if not QWEN_VOCABULARY.is_dir():
        pytest.skip("needs Qwen2's vocabulary in ../shared/data/tokenizer")
    return tiny_checkpoint(tmp_path_factory.mktemp("official"), tokenizer="qwen")


def test_official_settings_give_the_level_logits_of_generate(official_tiny):
    released, model = Released(official_tiny), qsit.load(official_tiny, device="cpu", dtype="float32")
    assert model.profile == OFFICIAL
    for size in SIZES:
        image = picture(*size)
        expected = released.level_logits(image, model.profile)
        got = model.level_logits(image)[0]
        assert expected.std() > 1e-3, "the tiny weights must tell levels apart, else this test proves nothing"
        assert torch.allclose(got, expected, atol=1e-4, rtol=0), (size, got, expected)


def test_nano_gives_the_level_logits_of_generate(nano_torch):
    released = Released(nano_torch.folder)
    for size in SIZES:
        image = picture(*size)
        expected = released.level_logits(image, nano_torch.profile)
        assert torch.allclose(nano_torch.level_logits(image)[0], expected, atol=1e-4, rtol=0), size


def test_nano_writes_the_text_of_generate(nano_torch):
    released = Released(nano_torch.folder)
    for size in [(128, 128), (300, 200), (640, 480)]:
        image = picture(*size)
        ids = released.answer_ids(image, "Describe and evaluate the quality of the image.", 60)
        assert nano_torch.explain(image, max_new_tokens=60).text == nano_torch.conversation.decode(ids).strip()


def test_official_words_and_prefix_have_the_published_token_ids(data, official_tiny):
    fixtures = json.loads((data / "official" / "fixtures.json").read_text())
    model = qsit.load(official_tiny, device="cpu")
    encode = model.checkpoint.tokenizer.encode
    released = fixtures["rating_token_ids_qwen2"]["released_capital_nospace"]
    assert dict(zip(OFFICIAL.level_words, OFFICIAL.level_token_ids, strict=True)) == released
    trained = fixtures["rating_token_ids_qwen2"]["train_json_lower_space"]
    words = [word.strip() for word in TRAINING_CONSISTENT.level_words]
    assert dict(zip(words, TRAINING_CONSISTENT.level_token_ids, strict=True)) == trained
    for profile in (OFFICIAL, TRAINING_CONSISTENT):
        expected = fixtures["prefix_ids"][profile.answer_prefix]
        assert encode(profile.answer_prefix, add_special_tokens=False) == expected
        assert list(model.prompt(profile.question, profile.answer_prefix).after[-len(expected) :]) == expected


def test_the_published_logits_give_the_published_score():
    logits = [11.953125, 9.390625, 11.0390625, 12.1015625, 15.3984375]
    about = {"scope": "human ratings", "model": "qsit-mini", "dtype": "float16"}
    score = Score.from_logits(logits, OFFICIAL.weights, level_mass=1.0, **about)
    assert score.value == pytest.approx(0.045549712192942585, abs=1e-12)
    assert score.level == "bad"
