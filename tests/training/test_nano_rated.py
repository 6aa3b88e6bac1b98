"""Which human-rated photos the teacher is trained on, chosen on, and measured on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from qsit_plugin.training.nano.human import rated
from qsit_plugin.training.nano.human.rated import Rated


def numbered(subset: str, numbers: range, part: str = "training") -> list[Rated]:
    return [Rated(Path(f"{subset} ({n}).jpg"), 0.5, part, subset) for n in numbers]


def different(count: int) -> np.ndarray:
    """Thumbnails of photos that do not resemble each other."""
    made = np.random.default_rng(0).normal(size=(count, 256)).astype(np.float32)
    return made / np.linalg.norm(made, axis=1, keepdims=True)


def test_photos_of_neighbouring_numbers_are_held_out_together_and_a_tenth_in_all():
    photos = numbered("ss02", range(2000))
    parts = {photo.path.name: photo.part for photo in rated.cut(photos, different(2000))}
    blocks = [{parts[f"ss02 ({n}).jpg"] for n in range(start, start + rated.BLOCK)} for start in range(0, 2000, 25)]
    assert all(len(block) == 1 for block in blocks)
    assert 0.03 < list(parts.values()).count("validation") / 2000 < 0.2


def test_a_training_photo_that_resembles_a_test_photo_is_not_trained_on():
    photos = [*numbered("ss01", range(4)), *numbered("ss01", range(900, 901), "test")]
    photos = [photo for photo in photos if photo.part == "test" or not rated.is_held_out(photo)]
    thumbnails = different(len(photos))
    thumbnails[0] = thumbnails[-1]
    assert [photo.part for photo in rated.cut(photos, thumbnails)] == [
        "twin",
        "training",
        "training",
        "training",
        "test",
    ]


def test_photos_that_cid22_holds_too_are_not_trained_on():
    photos = numbered("ss03", range(3684, 3685)) + numbered("ss03", range(7892, 7893))
    assert {photo.part for photo in rated.cut(photos, different(2))} <= {"twin", "validation"}


def test_a_picture_resembles_its_darker_and_smaller_self_and_not_another(tmp_path):
    pixels = np.kron(np.random.default_rng(0).integers(0, 256, (16, 16, 3)), np.ones((16, 16, 1))).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    Image.fromarray(pixels // 2).resize((128, 128)).save(tmp_path / "b.jpg")
    Image.fromarray(pixels[::-1].copy()).save(tmp_path / "c.png")
    a, b, c = (rated.thumbnail(tmp_path / name) for name in ("a.png", "b.jpg", "c.png"))
    assert a @ b > rated.ALIKE
    assert a @ c < 0.5


def test_the_order_within_subsets_does_not_count_the_order_between_them():
    photos = [Rated(Path("x"), mos, "test", subset) for subset, mos in [("a", 0.1), ("a", 0.2), ("b", 0.8), ("b", 0.9)]]
    found = rated.within_subsets(photos, np.array([2.0, 1.0, 4.0, 3.0]))
    assert found["all"] > 0.5
    assert [found[name] for name in ("mean", "a", "b")] == pytest.approx([-1, -1, -1])


def test_a_table_without_a_column_is_refused_by_the_column(tmp_path):
    (tmp_path / "ratings.csv").write_text("path,mos\na.png,0.5\n")
    with pytest.raises(ValueError, match="no column 'split', 'subset', 'twin'"):
        rated.read(tmp_path)


def test_missing_images_are_counted(tmp_path):
    (tmp_path / "ratings.csv").write_text("path,mos,std,split,subset,twin\na.png,0.5,,training,,\nb.png,0.5,,test,,\n")
    with pytest.raises(ValueError, match="2 of 2 images .* the first a.png"):
        rated.read(tmp_path)
