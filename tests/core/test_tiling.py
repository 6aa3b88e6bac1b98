"""Tiling against transformers' own image processor, processor and model."""

import json
import math
import random
from functools import lru_cache
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from transformers import AutoImageProcessor, LlavaOnevisionConfig, LlavaOnevisionProcessor
from transformers.models.llava_onevision import modeling_llava_onevision as hf

from qsit_plugin.engines.torch_engine import normalise
from qsit_plugin.tiling import Tiling

CLIP_MEAN, CLIP_STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]


def _points(tile: int, most: int) -> list[list[int]]:
    return [[tile * row, tile * column] for row in range(1, most + 1) for column in range(1, most + 1)]


def _preprocessor(tile: int, most: int, mean: list[float], std: list[float]) -> dict:
    return {
        "image_processor_type": "LlavaOnevisionImageProcessor",
        "size": {"height": tile, "width": tile},
        "image_grid_pinpoints": _points(tile, most),
        "image_mean": mean,
        "image_std": std,
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_pad": True,
        "do_rescale": True,
        "do_resize": True,
        "resample": 3,
        "rescale_factor": 1 / 255,
    }


def _config(tile: int, patch: int, points: list[list[int]], aspect: str = "anyres_max_9") -> LlavaOnevisionConfig:
    vision = {"model_type": "siglip_vision_model", "image_size": tile, "patch_size": patch, "hidden_size": 16}
    text = {"model_type": "qwen2", "hidden_size": 16, "num_attention_heads": 2, "num_key_value_heads": 2}
    return LlavaOnevisionConfig(
        vision_config=vision, text_config=text, image_grid_pinpoints=points, vision_aspect_ratio=aspect
    )


SETTINGS = {
    "official": (_config(384, 14, _points(384, 6)), _preprocessor(384, 6, [0.5] * 3, [0.5] * 3)),
    "nano": (_config(128, 16, _points(128, 3), "anyres_max_4"), _preprocessor(128, 3, CLIP_MEAN, CLIP_STD)),
}
TILINGS = {name: Tiling.from_configs(config, settings) for name, (config, settings) in SETTINGS.items()}
either = pytest.mark.parametrize("name", list(SETTINGS))


def _image_processor(settings: dict):
    """transformers' image processor that works with Pillow: a separate class on 5.x, the only slow one on 4.x."""
    name = "LlavaOnevisionImageProcessorPil" if transformers.__version__ >= "5" else "LlavaOnevisionImageProcessor"
    return getattr(transformers, name)(**{k: v for k, v in settings.items() if k != "image_processor_type"})


@lru_cache
def _sizes() -> list[tuple[int, int]]:
    """(width, height): 4,000 spread over all shapes, every small one, and those where rounding decided something."""
    rng = random.Random(0)
    sizes = [(4266, 2291), (2291, 4266), (7, 4000), (4000, 7), (1, 1), (384, 384), (385, 384), (2304, 2304), (2, 2000)]
    sizes += [(1, 3000), (3000, 1), (2, 6000), (9000, 3), (1, 20000)]  # round to nothing on every canvas
    sizes += [(width, height) for width in range(1, 25) for height in range(1, 25)]
    sizes += [tuple(int(math.exp(rng.uniform(0, math.log(6000)))) for _ in "wh") for _ in range(3000)]
    sizes += [(rng.randint(200, 5000), rng.randint(200, 5000)) for _ in range(1000)]
    return sizes


def _processor_count(name: str, width: int, height: int) -> int:
    """Image tokens as LlavaOnevisionProcessor counts them when it writes the prompt."""
    config, settings = SETTINGS[name]
    side = config.vision_config.image_size // config.vision_config.patch_size
    processor = SimpleNamespace(
        image_processor=SimpleNamespace(image_grid_pinpoints=settings["image_grid_pinpoints"]),
        num_image_tokens=side**2,
        vision_aspect_ratio=config.vision_aspect_ratio,
    )
    processor._get_unpadded_features = lambda *a: LlavaOnevisionProcessor._get_unpadded_features(processor, *a)
    tile = config.vision_config.image_size
    return LlavaOnevisionProcessor._get_number_of_features(processor, height, width, tile, tile)


@either
def test_token_counts_equal_the_processors_on_thousands_of_sizes(name):
    tiling = TILINGS[name]
    wrong = [size for size in _sizes() if tiling.token_count(*size) != _processor_count(name, *size)]
    assert len(_sizes()) > 4000
    assert wrong == []


@either
def test_grid_and_tile_count_equal_the_models_on_thousands_of_sizes(name):
    tiling, points, tile = TILINGS[name], SETTINGS[name][0].image_grid_pinpoints, TILINGS[name].tile
    for width, height in _sizes():
        assert tiling.grid(width, height) == hf.get_anyres_image_grid_shape((height, width), points, tile)
        assert tiling.tile_count(width, height) == hf.image_size_to_num_patches((height, width), points, tile)


@either
def test_the_unpadded_part_equals_the_models_on_thousands_of_sizes(name):
    tiling = TILINGS[name]
    for width, height in _sizes():
        rows, columns = (count * tiling.side for count in tiling.grid(width, height))
        whole = torch.arange(rows * columns).view(1, rows, columns)
        kept = hf.unpad_image(whole, (height, width))
        top, left, kept_rows, kept_columns = tiling.unpadded(width, height)
        assert kept.shape == (1, kept_rows, kept_columns)
        if kept.numel():
            assert kept[0, 0, 0] == top * columns + left


@either
def test_token_counts_equal_the_length_of_what_the_model_packs(name):
    tiling, config = TILINGS[name], SETTINGS[name][0]
    model = SimpleNamespace(config=config)
    for width, height in _sizes()[:14] + _sizes()[600::40]:
        features = torch.zeros(tiling.tile_count(width, height), tiling.side**2, 1)
        _, lengths = hf.LlavaOnevisionModel.pack_image_features(
            model, [features], [(height, width)], torch.zeros(1), config.vision_aspect_ratio
        )
        assert lengths.tolist() == [tiling.token_count(width, height)], (width, height)


def test_known_official_counts():
    # A table computed with transformers' own code; 4.45's processor had 7389 for the last one.
    expected = {(512, 384): 1728, (512, 512): 3699, (1024, 768): 4725, (3840, 2160): 7317, (2291, 4266): 7269}
    assert {size: TILINGS["official"].token_count(*size) for size in expected} == expected


@pytest.mark.parametrize("size", [(1, 3000), (3000, 1)])
@either
def test_an_image_one_pixel_thin_is_still_seen(name, size):
    tiles = TILINGS[name].cut(Image.new("RGB", size, "white"))
    assert len(tiles) == 2
    assert tiles[0].min() == 255
    assert tiles[1].max() == 255, "the picture is on the canvas"


# Not 900x7: for nano it is 3 pixels high when fitted, which transformers 4.57 takes for the channels.
PHOTO_SIZES = [
    (32, 32), (33, 47), (100, 40), (64, 300), (384, 384), (385, 383), (500, 375), (512, 512), (640, 480), (333, 777),
    (720, 1280), (1024, 768), (1023, 1025), (900, 300), (300, 1500), (1920, 1080), (1080, 2400), (2304, 2304),
    (3000, 2000), (2291, 1266), (12, 900), (900, 12),
]  # fmt: skip


@lru_cache(maxsize=2)
def _picture(width: int, height: int) -> Image.Image:
    """Smooth structure and noise, so that bicubic overshoot, clipping and every byte value occur."""
    rng = np.random.default_rng(width * 10007 + height)
    coarse = Image.fromarray(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8)).resize((width, height), 3)
    noise = rng.integers(-60, 61, (height, width, 3), dtype=np.int16)
    return Image.fromarray((np.asarray(coarse) + noise).clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize("size", PHOTO_SIZES, ids=str)
@either
def test_pixels_equal_transformers_pil_processor(name, size):
    tiling, picture = TILINGS[name], _picture(*size)
    expected = np.asarray(_image_processor(SETTINGS[name][1])(picture, return_tensors="np")["pixel_values"][0])
    tiles = tiling.cut(picture)
    assert tiles.dtype == np.uint8
    ours = normalise(tiling, torch.from_numpy(tiles))
    assert ours.dtype == torch.float32
    assert expected.shape == ours.shape
    assert np.array_equal(expected, ours.numpy()), "bit by bit"


def test_pixels_equal_the_processor_loaded_from_a_checkpoint_folder(tmp_path):
    config, settings = SETTINGS["nano"]
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings), encoding="utf-8")
    config.save_pretrained(tmp_path)
    choice = {"backend": "pil"} if transformers.__version__ >= "5" else {"use_fast": False}
    processor = AutoImageProcessor.from_pretrained(tmp_path, **choice)
    expected = processor(_picture(500, 375), return_tensors="np")["pixel_values"][0]
    tiling = Tiling.from_configs(LlavaOnevisionConfig.from_pretrained(tmp_path), settings)
    assert np.array_equal(
        np.asarray(expected), normalise(tiling, torch.from_numpy(tiling.cut(_picture(500, 375)))).numpy()
    )


def test_base_view_comes_first_and_tiles_follow_row_by_row():
    tiling = TILINGS["nano"]
    pixels = np.zeros((256, 384, 3), dtype=np.uint8)
    for row in range(2):
        for column in range(3):
            pixels[row * 128 : row * 128 + 128, column * 128 : column * 128 + 128] = 10 * (3 * row + column + 1)
    tiles = tiling.cut(Image.fromarray(pixels))
    assert [int(value) for tile in tiles[1:] for value in np.unique(tile)] == [10, 20, 30, 40, 50, 60]
    assert tiles[0, 0, 0, 0] == 10 and tiles[0, 0, -1, -1] == 60


def test_padding_is_black_and_the_picture_is_centred():
    tiles = TILINGS["nano"].cut(Image.new("RGB", (128, 101), "white"))
    lines = tiles[1, 0, :, 0]
    assert int((lines == 255).sum()) == 101
    assert lines.nonzero()[0][0] == 13, "27 spare lines: 13 above, 14 below"


def test_cut_refuses_what_is_not_8_bit_rgb():
    with pytest.raises(ValueError, match="cut needs an image of mode RGB, got L"):
        TILINGS["nano"].cut(Image.new("L", (8, 8)))


def test_an_empty_preprocessor_config_means_transformers_defaults():
    tiling = Tiling.from_configs(_config(384, 14, _points(384, 6)), {})
    default = _image_processor({})
    assert [list(point) for point in tiling.grid_points] == [list(point) for point in default.image_grid_pinpoints]
    assert (tiling.mean, tiling.std) == (tuple(default.image_mean), tuple(default.image_std))
    assert tiling.tile == default.size["height"]


def test_settings_are_taken_from_the_checkpoint():
    tiling = TILINGS["nano"]
    assert (tiling.tile, tiling.patch, tiling.side, tiling.max_tiles) == (128, 16, 8, 4)
    assert tiling.mean == tuple(CLIP_MEAN)
    assert tiling.grid_points[:2] == ((128, 128), (128, 256))


@pytest.mark.parametrize("size", [128, {"shortest_edge": 128}, {"height": 128, "width": 128, "longest_edge": None}])
def test_every_spelling_of_a_square_size_is_read(size):
    config, settings = SETTINGS["nano"]
    assert Tiling.from_configs(config, settings | {"size": size}) == TILINGS["nano"]


@pytest.mark.parametrize(
    "change, complaint",
    [
        ({"size": {"height": 384, "width": 384}}, "size is"),
        ({"size": {"height": 128, "width": 64}}, "size is"),
        ({"crop_size": {"height": 96, "width": 96}}, "crop_size is"),
        ({"image_grid_pinpoints": _points(128, 2)}, "image_grid_pinpoints: 4 here, 9 there"),
        ({"image_grid_pinpoints": _points(128, 3)[::-1]}, "the order differs"),
        ({"vision_aspect_ratio": "anyres_max_9"}, "vision_aspect_ratio is 'anyres_max_4' in config.json"),
        ({"num_image_tokens": 729}, "num_image_tokens is 729"),
        ({"vision_feature_select_strategy": "default"}, "vision_feature_select_strategy"),
        ({"image_mean": [0.5, 0.5]}, "image_mean must be three"),
        ({"image_std": [0.5, 0.0, 0.5]}, "image_std must not hold 0"),
        ({"image_std": [0.5, 1e-30, 0.5]}, "nor anything below 0.001"),
        ({"image_std": [0.5, -0.5, 0.5]}, "nor anything below 0.001"),
        ({"image_std": [float("nan")] * 3}, "image_std must be three finite numbers"),
        ({"image_mean": [float("inf")] * 3}, "image_mean must be three finite numbers"),
        ({"image_mean": "555"}, "must be a number or three; got '555'"),
        ({"image_grid_pinpoints": [[51200, 51200]]}, "at most 33,554,432 pixels"),
        ({"do_rescale": False}, "do_rescale is false"),
        ({"do_normalize": False}, "do_normalize is false"),
        ({"resample": 2}, "resample is 2"),
        ({"rescale_factor": 1 / 127.5}, "rescale_factor"),
        ({"image_processor_type": "Qwen2VLImageProcessor"}, "image_processor_type is Qwen2VL"),
    ],
)
def test_a_disagreement_between_model_and_processor_is_named(change, complaint):
    config, settings = SETTINGS["nano"]
    with pytest.raises(ValueError, match="do not fit") as caught:
        Tiling.from_configs(config, settings | change)
    assert complaint in str(caught.value)


def test_all_disagreements_are_named_at_once():
    config, settings = SETTINGS["nano"]
    with pytest.raises(ValueError) as caught:
        Tiling.from_configs(config, settings | {"resample": 2, "do_normalize": False, "image_std": [1.0]})
    assert all(word in str(caught.value) for word in ("resample", "do_normalize", "image_std"))


def test_grid_points_that_are_not_whole_tiles_are_refused():
    points = [[128, 128], [128, 200]]
    with pytest.raises(ValueError, match="whole multiples of the tile size 128"):
        Tiling.from_configs(
            _config(128, 16, points), _preprocessor(128, 1, CLIP_MEAN, CLIP_STD) | {"image_grid_pinpoints": points}
        )


def test_an_aspect_ratio_that_is_not_anyres_is_refused():
    with pytest.raises(ValueError, match="only 'anyres_max_N'"):
        Tiling.from_configs(_config(128, 16, _points(128, 3), "pad"), SETTINGS["nano"][1])


@pytest.mark.parametrize("size", [(0, 5), (5, 0)])
def test_an_empty_image_has_no_canvas(size):
    with pytest.raises(ValueError, match="at least one pixel"):
        TILINGS["nano"].canvas(*size)
