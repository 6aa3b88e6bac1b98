"""The embedded model on photos that it never saw: it must really work, not only load."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageFilter

from qsit_plugin.training.nano.evaluate import rank_correlation
from qsit_plugin.training.synthetic.distortions import NAMES
from qsit_plugin.training.synthetic.vocabulary import NAMING

data = pytest.importorskip("skimage.data", reason="test photos come from scikit-image")
PHOTOS = ("astronaut", "chelsea", "coffee")


@pytest.fixture(scope="module", params=PHOTOS)
def photo(request):
    return Image.fromarray(getattr(data, request.param)())


def jpeg(image, quality):
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def test_scores_fall_along_a_blur_ladder(nano, photo):
    steps = [photo] + [photo.filter(ImageFilter.GaussianBlur(sigma)) for sigma in (1, 2, 3, 5, 8)]
    values = [score.value for score in nano.score(steps)]
    assert rank_correlation(values, range(len(values))) <= -0.8, values


def test_scores_fall_as_jpeg_gets_stronger(nano, photo):
    """Among the compressed ones: a clean photo and one at quality 50 are not distinguished reliably (see the card)."""
    clean, *values = [score.value for score in nano.score([photo, *(jpeg(photo, q) for q in (50, 30, 18, 9, 4))])]
    assert rank_correlation(values, range(len(values))) <= -0.8, values
    assert clean > values[-1]


def test_strong_noise_is_named(nano, photo):
    noisy = np.asarray(photo) + np.random.default_rng(0).normal(0, 40, (photo.height, photo.width, 3))
    shares = nano.choose(Image.fromarray(noisy.clip(0, 255).astype(np.uint8)), NAMING[0], NAMES)
    assert NAMES[int(np.argmax(shares))] == "noise"


def test_a_choice_follows_its_option_and_not_its_place(nano, photo):
    """Strong blur among two options, in both orders."""
    look = nano.encode(photo.filter(ImageFilter.GaussianBlur(6)))
    assert look.choose(NAMING[0], ["blur", "noise"])[0] > 0.5
    assert look.choose(NAMING[0], ["noise", "blur"])[1] > 0.5


def test_explanations_name_what_is_wrong_and_differ_from_the_clean_ones(nano, photo):
    blurred = nano.explain(photo.filter(ImageFilter.GaussianBlur(5)))
    assert "blur" in blurred.text.lower()
    assert blurred.finish_reason == "stop"
    assert blurred.text != nano.explain(photo).text


def test_the_level_words_get_nearly_all_the_probability(nano, photo):
    assert nano.score(photo).level_mass > 0.95


def test_the_scope_is_said(nano, photo):
    score = nano.score(photo)
    assert score.scope == "human ratings of photos, and synthetic distortions"
    assert score.scope_kind == "mixed"


def test_the_weights_fit_into_the_package(nano):
    assert sum(file.stat().st_size for file in nano.folder.glob("*.safetensors")) <= 16 * 2**20
