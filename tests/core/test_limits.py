"""``max_tiles`` and ``max_image_tokens``: bounds that always hold, and a reading that equals transformers'."""

import json
import random
import shutil
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from transformers.models.llava_onevision import modeling_llava_onevision as hf

import qsit_plugin
from qsit_plugin.checkpoint import read_preprocessor
from qsit_plugin.evaluation.rated_scores import read_rated_scores
from qsit_plugin.evaluation.scorers import ModelScorer
from qsit_plugin.limits import LimitError, limited, limits_of, most_tokens, tiles_of
from qsit_plugin.tiling import Tiling
from tests.core.reference import Released
from tests.tiny import tiny_checkpoint

THIRD = (1 / 3,) * 3


def tiling_of(tile: int, patch: int, most: int = 9) -> Tiling:
    points = tuple((tile * row, tile * column) for row in range(1, 7) for column in range(1, 7))
    return Tiling(tile, patch, points, most, THIRD, THIRD)


OFFICIAL, NANO, FEW = tiling_of(384, 14), tiling_of(128, 16), tiling_of(128, 16, most=1)
every = pytest.mark.parametrize("tiling", [OFFICIAL, NANO, FEW], ids=["official", "nano", "anyres_max_1"])


def sizes() -> list[tuple[int, int]]:
    """(width, height) of all shapes: usual ones, tiny ones, one-pixel lines."""
    rng = random.Random(0)
    lines = [(1, 1), (1, 3000), (3000, 1), (2, 6000), (9000, 3)]
    small = [(rng.randint(1, 60), rng.randint(1, 3000)) for _ in range(60)]
    return lines + small + [(rng.randint(100, 5000), rng.randint(100, 5000)) for _ in range(200)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_checkpoint(tmp_path_factory.mktemp("tiny") / "checkpoint", official=False)


@pytest.fixture(scope="module")
def picture():
    return Image.effect_noise((700, 500), 60).convert("RGB")


def restricted_copy(folder, target, points):
    """The checkpoint with fewer pinpoints in both configs: what transformers itself calls a limit."""
    shutil.copytree(folder, target)
    for name in ("config.json", "preprocessor_config.json", "processor_config.json"):
        path = target / name
        if not path.is_file():
            continue
        content = json.loads(path.read_text(encoding="utf-8"))
        for part in (content, content.get("image_processor")):
            if isinstance(part, dict) and "image_grid_pinpoints" in part:
                part["image_grid_pinpoints"] = [list(point) for point in points]
        path.write_text(json.dumps(content), encoding="utf-8")
    assert len(read_preprocessor(target)["image_grid_pinpoints"]) == len(points)
    return target


@every
def test_without_limits_the_tiling_is_untouched(tiling):
    assert limited(tiling, None, None) is tiling
    assert limits_of(tiling) == []


@every
def test_no_image_has_more_tiles_than_the_limit(tiling):
    for most in (1, 2, 5, 12):
        few = limited(tiling, most, None)
        assert max(few.tile_count(*size) for size in sizes()) == most + 1, "reached, and never passed"


@every
def test_no_image_has_more_tokens_than_the_limit(tiling):
    least, largest = (pick(most_tokens(tiling, point) for point in tiling.grid_points) for pick in (min, max))
    for most in (least, least + 1, (2 * least + largest) // 3, (least + largest) // 2, largest - 1):
        few = limited(tiling, None, most)
        assert max(few.token_count(*size) for size in sizes()) <= most


@every
def test_no_image_has_more_tokens_than_info_says_of_its_grid(tiling):
    for width, height in sizes():
        for point in tiling.grid_points:
            assert tiling.token_count(width, height, point) <= most_tokens(tiling, point)


@every
def test_a_token_limit_takes_the_best_of_the_grids_that_keep_it_as_transformers_chooses(tiling):
    counts = [most_tokens(tiling, point) for point in tiling.grid_points]
    few = limited(tiling, None, (min(counts) + max(counts)) // 2)
    for width, height in sizes():
        if min(width, height) > 60:  # transformers finds no grid at all for a line of pixels
            kept = [list(p) for p in tiling.grid_points if tiling.token_count(width, height, p) <= few.token_limit]
            assert few.grid(width, height) == hf.get_anyres_image_grid_shape((height, width), kept, tiling.tile)


@every
def test_tiles_tokens_and_packing_of_a_limited_tiling_fit_each_other(tiling):
    few = limited(tiling, 5, 2 * tiling.side**2 + 7 * tiling.side)
    for width, height in sizes()[::25]:
        assert len(few.cut(Image.new("RGB", (width, height)))) == few.tile_count(width, height)
        index = few.feature_index(width, height)
        assert len(index) == few.unpadded(width, height)[2] * few.unpadded(width, height)[3]
        assert index.size == 0 or int(index.max()) < few.tile_count(width, height) * few.side**2


def test_a_tile_limit_reads_as_generate_does_with_so_few_pinpoints(folder, picture, tmp_path):
    pytest.importorskip("torchvision", reason="transformers' own processor needs torchvision")
    model = qsit_plugin.load(folder, device="cpu", max_tiles=4)
    released = Released(restricted_copy(folder, tmp_path / "few", model.engine.tiling.grid_points))
    for image in (picture, picture.resize((150, 900)), picture.resize((100, 90)), picture.resize((2000, 40))):
        expected = released.level_logits(image, model.profile)
        assert torch.allclose(model.level_logits(image)[0], expected, atol=1e-4, rtol=0), image.size


@pytest.mark.parametrize("size", [(700, 500), (200, 900), (1500, 300)])
def test_a_token_limit_reads_as_generate_does_with_the_pinpoints_that_keep_it(folder, picture, tmp_path, size):
    pytest.importorskip("torchvision", reason="transformers' own processor needs torchvision")
    model, image = qsit_plugin.load(folder, device="cpu", max_image_tokens=300), picture.resize(size)
    tiling = model.engine.tiling
    kept = [point for point in tiling.grid_points if tiling.token_count(*size, point) <= 300]
    assert 0 < len(kept) < len(tiling.grid_points)
    released = Released(restricted_copy(folder, tmp_path / "few", kept))
    assert torch.allclose(model.level_logits(image)[0], released.level_logits(image, model.profile), atol=1e-4, rtol=0)


def test_scores_and_answers_say_their_limits(folder, picture):
    model = qsit_plugin.load(folder, device="cpu", max_tiles=1, max_image_tokens=200)
    assert model.score(picture).mode == "at most 1 tile"  # whose at most 136 tokens keep the other limit anyway
    model = qsit_plugin.load(folder, device="cpu", max_tiles=4, max_image_tokens=200)
    assert model.score(picture).mode == "at most 4 tiles, at most 200 image tokens"
    assert model.ask(picture, "Why?", max_new_tokens=2).mode == "at most 4 tiles, at most 200 image tokens"


def test_a_limit_changes_scores_and_a_limit_that_nothing_reaches_does_not(folder, picture):
    plain = qsit_plugin.load(folder, device="cpu").score(picture)
    assert plain.mode == "released"
    assert qsit_plugin.load(folder, device="cpu", max_tiles=4).score(picture).value != plain.value
    assert qsit_plugin.load(folder, device="cpu", max_tiles=36, max_image_tokens=9999).score(picture) == plain


def test_a_stored_calibration_is_refused_with_limits(folder, picture, tmp_path):
    own = shutil.copytree(folder, tmp_path / "calibrated")
    profile = json.loads((own / "qsit.json").read_text(encoding="utf-8"))
    profile["scales"] = {"koniq": {"kind": "logistic4", "parameters": [90.0, 10.0, 0.5, 0.1], "range": [0, 100]}}
    (own / "qsit.json").write_text(json.dumps(profile), encoding="utf-8")
    assert 10 < qsit_plugin.load(own, device="cpu").score(picture).on("koniq") < 90
    score = qsit_plugin.load(own, device="cpu", max_tiles=2).score(picture)
    with pytest.raises(ValueError, match="holds for scores without limits, this one is 'at most 2 tiles': load"):
        score.on("koniq")
    assert score.on("0-100") == pytest.approx(100 * score.value)


def test_scores_with_limits_cannot_be_calibrated(folder, picture, tmp_path):
    mode, table = qsit_plugin.load(folder, device="cpu", max_tiles=2).score(picture).mode, tmp_path / "scores.csv"
    table.write_text(f"score,mos,split,mode\n0.5,60,val,released\n0.4,50,val,{mode}\n", encoding="utf-8")
    with pytest.raises(ValueError, match="line 3: a score in mode 'at most 2 tiles' cannot be calibrated.*score again"):
        read_rated_scores(table)


def test_scores_with_limits_are_not_taken_for_released_ones_when_a_benchmark_goes_on(folder):
    plain, few = (ModelScorer(qsit_plugin.load(folder, device="cpu", max_tiles=most)) for most in (None, 4))
    assert few.fingerprint == {**plain.fingerprint, "limits": ["at most 4 tiles"]}


@pytest.mark.parametrize("wrong", [0, -1, 2.0, True, "4"])
def test_a_wrong_tile_limit_is_refused_with_what_the_grids_have(folder, wrong):
    with pytest.raises(LimitError, match=f"max_tiles must be a whole number from 1 on.*got {wrong!r}.*1 to 36 tiles"):
        qsit_plugin.load(folder, device="cpu", max_tiles=wrong)


def test_a_token_limit_below_the_smallest_grid_is_refused_with_its_count():
    with pytest.raises(LimitError, match=r"from 1485 on.*got 1484.*smallest grid gives up to 1485.*up to 8829"):
        limited(OFFICIAL, None, 1484)


def test_after_a_tile_limit_the_token_limit_counts_the_grids_that_are_left():
    both = limited(NANO, 4, 300)
    assert max(tiles_of(both, point) for point in both.grid_points) == 4
    assert limits_of(both) == ["at most 4 tiles", "at most 300 image tokens"]
    assert limits_of(limited(NANO, 4, 352)) == ["at most 4 tiles"], "four tiles never give more than 352"


def test_a_second_reading_in_bfloat16_has_the_same_limits(folder):
    model = qsit_plugin.load(folder, device="cpu", dtype="float32", max_tiles=4)
    assert model.bfloat16_engine().tiling == model.engine.tiling


def test_official_token_counts_equal_what_transformers_packs_with_so_few_pinpoints():
    few = limited(OFFICIAL, 4, None)
    config = SimpleNamespace(
        image_grid_pinpoints=[list(point) for point in few.grid_points],
        vision_config=SimpleNamespace(image_size=384, patch_size=14),
    )
    for width, height in sizes()[65::20]:
        features = torch.zeros(few.tile_count(width, height), few.side**2, 1)
        pack = hf.LlavaOnevisionModel.pack_image_features
        args = ([features], [(height, width)], torch.zeros(1), "anyres_max_9")
        _, lengths = pack(SimpleNamespace(config=config), *args)
        assert lengths.tolist() == [few.token_count(width, height)]


def test_the_benchmark_of_limits_has_a_row_for_each_model(folder, tmp_path):
    from benchmarks.fast_tier import measured, rows

    models = [qsit_plugin.load(folder, device="cpu", **limit) for limit in ({}, {"max_tiles": 1})]
    paths = [tmp_path / f"{width}.png" for width in (60, 300, 500)]
    for path in paths:
        Image.effect_noise((int(path.stem), 200), 50).convert("RGB").save(path)
    released, limited_row = rows(models, *measured(models, paths))
    assert released.startswith("| none (released) | 1.00 | 0% |")
    assert limited_row.startswith("| at most 1 tile |")
