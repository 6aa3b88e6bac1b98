"""What is no fault: black-and-white photos, photo files, drawings; and what a distortion leaves of a photo's level."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from qsit_plugin.training.synthetic import distortions, photos
from qsit_plugin.training.synthetic.detail import as_file
from qsit_plugin.training.synthetic.distortions import Defect
from qsit_plugin.training.synthetic.drawings import drawings

data = pytest.importorskip("skimage.data", reason="test photos come from scikit-image")


@pytest.fixture(scope="module")
def photo():
    return Image.fromarray(data.astronaut()).crop((100, 0, 356, 256))


def rng(seed=0):
    return np.random.default_rng(seed)


def test_faded_colors_never_lose_all_of_their_color(photo):
    """A black-and-white photo is a photo, not the last step of a fault."""
    for seed in range(6):
        faded = np.asarray(distortions.distort(photo, "faded color", 1.0, rng(seed)), float)
        ratio = np.ptp(faded, axis=-1).mean() / np.ptp(np.asarray(photo, float), axis=-1).mean()
        assert 0.05 < ratio < 0.2


def test_a_clean_and_a_distorted_view_are_stored_as_files_equally_often(photo, monkeypatch):
    stored = []
    monkeypatch.setattr(photos, "as_file", lambda image, rng: stored.append(1) or image)
    counts = []
    for plan in ((), (("noise", 0.5),)):
        stored.clear()
        for seed in range(200):
            photos.apply(photo.crop((0, 0, 16, 16)), plan, seed)
        counts.append(len(stored))
    assert all(0.3 < count / 200 < 0.5 for count in counts)


def test_a_file_of_an_ordinary_photo_is_nearly_the_photo(photo):
    for seed in range(12):
        assert 0 < np.abs(np.asarray(as_file(photo, rng(seed)), float) - np.asarray(photo, float)).mean() < 5


def test_drawings_have_one_size_and_repeat_with_their_seed():
    first, again = (drawings(3, seed=1) for _ in range(2))
    assert [image.size for image in first] == [(512, 512)] * 3
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[0], first[1])


def test_a_few_plain_colors_are_a_drawing_and_no_photo_is_even_without_colors(photo):
    plain = Image.new("RGB", (128, 128), (10, 20, 30))
    plain.paste((200, 0, 0), (20, 20, 90, 90))
    assert photos.is_drawn(plain)
    assert not photos.is_drawn(photo) and not photos.is_drawn(photo.convert("L").convert("RGB"))
    names = {photos.pick_name(plain, rng(seed), {}) for seed in range(200)}
    assert len(names) > 10 and "banding" not in names


def test_what_a_distortion_leaves_of_a_photos_own_level():
    clean = distortions.severity_score([])
    assert distortions.degraded(3.5, clean) == pytest.approx(3.5)
    worst = distortions.degraded(3.5, distortions.severity_score([Defect("blur", 1.0)]))
    assert worst == pytest.approx(1.0) and distortions.degraded(1.0, 2.0) == 1.0
