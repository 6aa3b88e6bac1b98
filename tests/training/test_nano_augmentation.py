"""Clean photos of more kinds than there are photos, and stages that start from the packaged nano."""

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from qsit_plugin.training.nano import tower
from qsit_plugin.training.nano.average import average
from qsit_plugin.training.nano.language import learner, take_weights
from qsit_plugin.training.synthetic import augmentation, photos

RED, BLUE = (200, 0, 0), (0, 0, 200)


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8))


def augmented(image: Image.Image, others: list[Image.Image], seed: int, share: float) -> np.ndarray:
    return np.asarray(augmentation.augmented(image, others, np.random.default_rng(seed), share))


@pytest.mark.parametrize("size", [(64, 64), (96, 48)])
def test_an_augmented_photo_is_another_one_of_the_same_size_and_repeats_with_its_seed(size):
    image, others = noise(*size), [noise(150, 150, 1)]
    first, again = (augmented(image, others, 3, 1.0) for _ in range(2))
    assert first.shape == (size[1], size[0], 3)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, np.asarray(image))


def test_without_augmentation_a_photo_stays_as_it_is():
    image = noise(64, 64)
    assert np.array_equal(augmented(image, [noise(150, 150, 1)], 3, 0.0), np.asarray(image))


def test_a_pieced_photo_shows_both():
    image, other = Image.new("RGB", (64, 64), RED), Image.new("RGB", (150, 150), BLUE)
    for seed in range(20):
        pieced = np.asarray(augmentation._pieced(image, other, np.random.default_rng(seed)))
        for color in (RED, BLUE):
            assert (pieced == color).all(-1).mean() > 0.04, seed


def test_a_photo_too_small_to_fill_the_piece_is_left_out_since_enlarging_would_blur_it():
    image = noise(64, 64)
    for seed in range(8):
        assert augmentation._pieced(image, noise(150, 31, 1), np.random.default_rng(seed)) is image


@pytest.mark.parametrize("size", [(64, 64), (96, 48)])
def test_a_piece_turned_by_any_angle_has_no_black_corners(size):
    white = Image.new("RGB", (400, 260), (255, 255, 255))
    for seed in range(60):
        piece = augmentation._piece(white, size, np.random.default_rng(seed))
        assert piece.size == size
        assert np.asarray(piece).min() == 255, seed


def test_a_photo_that_is_not_large_enough_to_be_shrunk_goes_on_in_its_mirror_images():
    photo = np.asarray(noise(30, 20))
    mirrored = np.asarray(augmentation._mirrored(Image.fromarray(photo)))
    assert np.array_equal(mirrored[:20, :30], photo)
    assert np.array_equal(mirrored[:20, 30:], photo[:, ::-1])
    assert np.array_equal(mirrored[20:], mirrored[19::-1])


def test_a_turned_photo_has_the_same_pixels_elsewhere():
    image = noise(64, 64)
    for seed in range(4):
        turned = np.asarray(augmentation._turned(image, np.random.default_rng(seed)))
        assert not np.array_equal(turned, np.asarray(image))
        assert np.array_equal(np.sort(turned.reshape(-1, 3), axis=0), np.sort(np.asarray(image).reshape(-1, 3), axis=0))


def test_another_look_stays_an_ordinary_one():
    image = noise(64, 64)
    before = np.asarray(image, np.float32)
    for seed in range(20):
        change = np.abs(np.asarray(augmentation.another_look(image, np.random.default_rng(seed)), np.float32) - before)
        assert 0 < change.mean() < 40


def test_pairs_of_an_augmented_region_still_differ_in_their_strength_only():
    clean = [noise(300, 300, seed) for seed in range(3)]
    for seed in range(20):
        pairs = list(photos.sample_pairs(clean, np.random.default_rng(seed), augmentation=1.0, count=2))
        assert len(pairs) == 2
        for mild, strong in pairs:
            assert mild.score >= strong.score
            assert {d.name for d in mild.defects} <= {d.name for d in strong.defects} or not strong.defects


def test_pairs_of_one_region_show_the_same_picture():
    clean = [Image.new("RGB", (300, 300), color) for color in (RED, BLUE)]
    for seed in range(20):
        rng = np.random.default_rng(seed)
        milder = [mild for mild, _ in photos.sample_pairs(clean, rng, count=4) if not mild.defects]
        assert len({tuple(view.pixels[64, 64] > 100) for view in milder}) <= 1


def test_a_frame_is_plain_and_leaves_what_is_inside():
    image = noise(96, 64)
    before = np.asarray(image)
    for seed in range(20):
        framed = np.asarray(augmentation.framed(image, np.random.default_rng(seed), share=1.0))
        inside = (framed == before).all(-1)
        border = framed[~inside]
        assert inside.mean() >= 0.04
        assert len(border) == 0 or len(np.unique(border, axis=0)) == 1, seed


def test_only_a_share_of_the_views_is_framed():
    image = noise(64, 64)
    assert sum(augmentation.framed(image, np.random.default_rng(seed)) is not image for seed in range(200)) in range(
        5, 50
    )


def test_a_grey_photo_is_a_clean_one_and_no_color_is_missed_in_it():
    image = noise(128, 128).resize((64, 64))
    grey = [seed for seed in range(150) if np.ptp(augmented(image, [image], seed, 0.01), axis=-1).max() == 0]
    assert 2 <= len(grey) <= 30
    black_and_white = image.convert("L").convert("RGB")
    names = {photos.pick_name(black_and_white, np.random.default_rng(seed), {}) for seed in range(200)}
    assert len(names) > 10 and "faded color" not in names


def test_a_step_looks_at_other_tokens_than_the_last_and_always_at_the_same():
    stage = tower.TowerStage(kept=0.5)
    first, again, next_one = (tower.some_tokens(stage, step) for step in (7, 7, 8))
    assert len(first) == 32 and torch.equal(first, again) and not torch.equal(first, next_one)
    assert tower.some_tokens(tower.TowerStage(), 7) is None


def test_tokens_that_are_kept_know_nothing_of_those_that_are_not():
    model = tower.TowerWithHeads(0).eval()
    kept = torch.arange(0, 64, 2)
    views = torch.randint(0, 256, (2, 128, 128, 3), dtype=torch.uint8)
    changed = views.clone()
    changed[:, :16, 16:32] = 0  # token 1
    with torch.no_grad():
        assert torch.equal(model.tokens(views, kept), model.tokens(changed, kept))
        assert torch.allclose(model.tokens(views, torch.arange(64)), model.tokens(views), atol=1e-5)
        assert not torch.allclose(model.tokens(views), model.tokens(changed), atol=1e-3)


def test_a_language_model_taken_from_the_packaged_nano_is_that_one():
    import qsit_plugin

    made = learner()
    take_weights(made, "qsit-nano")
    expected = qsit_plugin.load("qsit-nano", engine="torch", device="cpu", dtype="float32").engine.hf.state_dict()
    found = made.model.state_dict()
    assert all(torch.equal(found[name], weight) for name, weight in expected.items())


def test_the_average_of_a_nano_with_itself_is_that_nano_and_loads(tmp_path):
    import qsit_plugin

    average("qsit-nano", "qsit-nano", tmp_path / "averaged", 0.25)
    found, expected = (
        qsit_plugin.load(name, engine="torch", device="cpu", dtype="float32").engine.hf.state_dict()
        for name in (tmp_path / "averaged", "qsit-nano")
    )
    assert all(torch.equal(found[name], weight) for name, weight in expected.items())


def test_an_average_takes_its_share_of_each(tmp_path):
    for name, value in (("new", 4.0), ("old", 0.0)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
        save_file({"weight": torch.full((2, 3), value)}, tmp_path / name / "model.safetensors")
    average(tmp_path / "new", tmp_path / "old", tmp_path / "out", 0.75)
    assert torch.equal(load_file(tmp_path / "out" / "model.safetensors")["weight"], torch.full((2, 3), 3.0))


def test_nanos_of_other_shapes_have_no_average(tmp_path):
    for name, size in (("new", 2), ("old", 3)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
        save_file({"weight": torch.zeros(size)}, tmp_path / name / "model.safetensors")
    with pytest.raises(ValueError, match="not of one architecture"):
        average(tmp_path / "new", tmp_path / "old", tmp_path / "out", 0.5)


def test_a_new_tower_takes_its_share_beside_the_tower_so_far():
    made, new = learner(width=96), tower.TowerWithHeads(seed=1)
    mine = tower.inner_tower(made.model.model.vision_tower)
    before = {name: weight.clone() for name, weight in mine.state_dict().items()}
    made.take_tower(new, share=0.25)
    for name, weight in tower.inner_tower(new.tower).state_dict().items():
        assert torch.allclose(mine.state_dict()[name], 0.75 * before[name] + 0.25 * weight, atol=1e-6)
        assert torch.equal(before[name], weight) or not torch.equal(mine.state_dict()[name], before[name])
