"""LLaVA-OneVision tiling ("anyres"): choose a canvas, resize exactly as Pillow does, cut tiles, count tokens.

An image becomes one base view (the whole picture squeezed into one tile) and the tiles of a canvas onto which the
picture is fitted with its aspect ratio kept, centred on black. The vision features of the canvas are cropped to the
picture again, reduced where they exceed ``max_tiles`` tiles ("anyres_max_9"), and each of their rows is followed by one
newline token. Tested against transformers' PIL image processor, processor and model, 4.57 and 5.x.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from PIL import Image

from qsit_plugin.weights.config_limits import point_problem
from qsit_plugin.weights.errors import short

DEFAULT_SIDE = 384
DEFAULT_MEAN = (0.48145466, 0.4578275, 0.40821073)
DEFAULT_STD = (0.26862954, 0.26130258, 0.27577711)
"""What transformers' image processor takes where preprocessor_config.json is silent: CLIP's, not SigLIP's 0.5."""

SMALLEST_STD = 0.001
LARGEST = 1000.0
"""Beyond these a mean or a std of pixels in [0, 1] is a damaged file: all images would look the same."""


@dataclass(frozen=True)
class Tiling:
    """How a checkpoint wants its images cut. Sizes are pixels; grid points are (height, width) in order of preference.

    ``patch`` is the side of one vision patch: a tile gives ``(tile // patch) ** 2`` tokens. ``max_tiles`` is the N of
    anyres_max_N. ``mean`` and ``std`` are per colour channel, for values in [0, 1].

    ``tile_limit`` and ``token_limit`` are the user's (see limits.py), None in the released procedure. The grid points
    keep to the tile limit already; the token limit depends on the image and is kept by ``canvas``, from which
    tiles, token counts and packing all follow.
    """

    tile: int
    patch: int
    grid_points: tuple[tuple[int, int], ...]
    max_tiles: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    tile_limit: int | None = None
    token_limit: int | None = None

    def __post_init__(self) -> None:
        problems = []
        if not 1 <= self.patch <= self.tile:
            problems.append(f"patch size {self.patch} does not fit a tile of {self.tile} pixels")
        uneven = [point for point in self.grid_points if min(point) < 1 or any(side % self.tile for side in point)][:36]
        if uneven or not self.grid_points:
            problems.append(f"grid points must be whole multiples of the tile size {self.tile}; got {uneven}")
        if self.max_tiles < 1:
            problems.append(f"anyres_max_{self.max_tiles} leaves no tile; at least 1")
        for name, values in (("image_mean", self.mean), ("image_std", self.std)):
            if len(values) != 3 or not all(abs(value) <= LARGEST for value in values):  # NaN is not
                problems.append(f"{name} must be three finite numbers, at most {LARGEST:g}; got {list(values)}")
        if not all(value >= SMALLEST_STD for value in self.std):
            problems.append(f"image_std must not hold 0, nor anything below {SMALLEST_STD}; got {list(self.std)}")
        if (problem := point_problem(self.grid_points)) is not None:
            problems.append(f"grid points {problem}")
        if problems:
            raise ValueError("unusable tiling: " + "; ".join(problems))

    @classmethod
    def from_configs(cls, config: Any, preprocessor: dict[str, Any]) -> Tiling:
        """The tiling that model and processor agree on.

        Args:
            config: the checkpoint's LlavaOnevisionConfig.
            preprocessor: its parsed preprocessor_config.json; keys of processor_config.json may be mixed in
                (``vision_aspect_ratio``, ``num_image_tokens``). Missing keys mean transformers' defaults.

        Raises:
            ValueError: naming every disagreement and every setting that is not supported.
        """
        problems = _disagreements(config, preprocessor)
        try:
            tiling = cls(
                tile=int(config.vision_config.image_size),
                patch=int(config.vision_config.patch_size),
                grid_points=_points(config.image_grid_pinpoints),
                max_tiles=_max_tiles(getattr(config, "vision_aspect_ratio", None)) or 9,
                mean=_three(preprocessor.get("image_mean"), DEFAULT_MEAN),
                std=_three(preprocessor.get("image_std"), DEFAULT_STD),
            )
        except ValueError as error:
            problems.append(str(error))
        if problems:
            raise ValueError("config.json and preprocessor_config.json do not fit: " + "; ".join(problems))
        return tiling

    @property
    def side(self) -> int:
        """Vision patches along a side of a tile (27 officially)."""
        return self.tile // self.patch

    def canvas(self, width: int, height: int) -> tuple[int, int]:
        """(height, width) of the grid point that keeps most of the image's pixels, then has the fewest padded pixels.

        With a token limit only grid points on which the image keeps it come into question. An image so thin that it
        rounds to nothing on every canvas (1x3000) gets the smallest, as in transformers.
        """
        if width < 1 or height < 1:
            raise ValueError(f"an image needs at least one pixel, got {width}x{height}")
        points = self.grid_points
        if self.token_limit is not None:
            points = tuple(p for p in points if self.token_count(width, height, p) <= self.token_limit)
        best, best_kept, best_wasted = points[0], 0, math.inf
        for point in points:
            scale = min(point[1] / width, point[0] / height)
            kept = min(int(width * scale) * int(height * scale), width * height)
            wasted = point[0] * point[1] - kept
            if kept > best_kept or (kept == best_kept and wasted < best_wasted):
                best, best_kept, best_wasted = point, kept, wasted
        return best

    def grid(self, width: int, height: int) -> tuple[int, int]:
        """(rows, columns) of tiles on the canvas."""
        canvas = self.canvas(width, height)
        return canvas[0] // self.tile, canvas[1] // self.tile

    def tile_count(self, width: int, height: int) -> int:
        """Tiles of the canvas and the base view."""
        rows, columns = self.grid(width, height)
        return rows * columns + 1

    def fitted(self, width: int, height: int) -> tuple[int, int, int, int]:
        """Where the picture lies on its canvas: (top, left, height, width) in pixels."""
        canvas_height, canvas_width = self.canvas(width, height)
        scale_x, scale_y = canvas_width / width, canvas_height / height
        if scale_x < scale_y:
            new_width, new_height = canvas_width, min(math.ceil(height * scale_x), canvas_height)
        else:
            new_width, new_height = min(math.ceil(width * scale_y), canvas_width), canvas_height
        return (canvas_height - new_height) // 2, (canvas_width - new_width) // 2, new_height, new_width

    def unpadded(self, width: int, height: int, canvas: tuple[int, int] | None = None) -> tuple[int, int, int, int]:
        """The part of the canvas's feature map that shows the picture: (top, left, rows, columns) in vision patches.

        ``canvas``, here and below: a grid point to ask about; None is the one that the image gets.

        A very thin picture may leave no row or no column of an even feature map; then only the base view and, per
        row, the newline remain.
        """
        canvas = canvas or self.canvas(width, height)
        rows, columns = (length // self.tile * self.side for length in canvas)
        if width / height > columns / rows:
            margin = (rows - _whole(height * (columns / width))) // 2
            return margin, 0, rows - 2 * margin, columns
        margin = (columns - _whole(width * (rows / height))) // 2
        return 0, margin, rows, columns - 2 * margin

    def features(self, width: int, height: int, canvas: tuple[int, int] | None = None) -> tuple[int, int]:
        """(rows, columns) of the feature map that the language model sees: unpadded, and where it holds more than
        ``max_tiles`` tiles' worth by over a tenth in each direction, reduced (bilinear)."""
        _, _, rows, columns = self.unpadded(width, height, canvas)
        ratio = math.sqrt(rows * columns / (self.max_tiles * self.side**2))
        if ratio > 1.1:
            return int(rows // ratio), int(columns // ratio)
        return rows, columns

    def token_count(self, width: int, height: int, canvas: tuple[int, int] | None = None) -> int:
        """Image tokens: base view, feature map, and one newline for each of its rows."""
        rows, columns = self.features(width, height, canvas)
        return self.side**2 + rows * columns + rows

    def feature_index(self, width: int, height: int) -> np.ndarray:
        """For each patch of the unpadded feature map, row by row, its place among all patches of all tiles: int64."""
        columns = self.grid(width, height)[1]
        top, left, height, width = self.unpadded(width, height)
        y, x = np.arange(top, top + height)[:, None], np.arange(left, left + width)
        tile = 1 + y // self.side * columns + x // self.side
        return (tile * self.side**2 + y % self.side * self.side + x % self.side).ravel()

    def cut(self, image: Image.Image) -> np.ndarray:
        """Base view first, then the canvas row by row: uint8 (tiles, 3, tile, tile) of an image of mode RGB.

        Pillow resizes, as the released procedure does: the pixels are its own.
        """
        if image.mode != "RGB":
            raise ValueError(f"cut needs an image of mode RGB, got {image.mode}; read it with read_image")
        top, left, height, width = self.fitted(image.width, image.height)
        canvas = np.zeros((*self.canvas(image.width, image.height), 3), dtype=np.uint8)
        fitted = image.resize((width, height), Image.Resampling.BICUBIC)
        canvas[top : top + height, left : left + width] = np.asarray(fitted)
        rows, columns = canvas.shape[0] // self.tile, canvas.shape[1] // self.tile
        tiles = np.empty((rows * columns + 1, 3, self.tile, self.tile), dtype=np.uint8)
        tiles[0] = np.asarray(image.resize((self.tile, self.tile), Image.Resampling.BICUBIC)).transpose(2, 0, 1)
        split = canvas.reshape(rows, self.tile, columns, self.tile, 3).transpose(0, 2, 4, 1, 3)
        tiles[1:].reshape(split.shape)[...] = split
        return tiles

    @cached_property
    def normalised(self) -> np.ndarray:
        """What the vision tower takes in place of each byte: float32 (3, 256), a row for each colour channel.

        With the roundings of transformers' rescale and normalize, so that pixels equal its PIL route bit by bit.
        """
        rescaled = (np.arange(256, dtype=np.float64) * (1 / 255)).astype(np.float32)
        return (rescaled - np.array(self.mean, np.float32)[:, None]) / np.array(self.std, np.float32)[:, None]


def _whole(length: float) -> int:
    """transformers since 4.48: a hair below a whole number, from rounding alone, counts as that number."""
    return int(round(length, 7))


def _points(points: Sequence[Sequence[int]]) -> tuple[tuple[int, int], ...]:
    return tuple((int(height), int(width)) for height, width in points)


def _three(value: Any, default: tuple[float, float, float]) -> Any:
    """A per-channel setting: missing is the default, one number stands for all channels."""
    if value is None:
        return default
    values = [value] * 3 if isinstance(value, (int, float)) else value
    if not isinstance(values, (list, tuple)) or any(
        isinstance(v, bool) or not isinstance(v, (int, float)) for v in values
    ):
        raise ValueError(f"image_mean and image_std must be a number or three; got {short(value)}")
    return tuple(float(v) for v in values)


def _max_tiles(aspect: Any) -> int | None:
    match = re.fullmatch(r"anyres_max_(\d+)", str(aspect))
    return int(match[1]) if match else None


def _square(size: Any) -> int | None:
    """Side of a square size setting in any of its spellings; None where it is not square."""
    if isinstance(size, int):
        return size
    sides = {size[key] for key in ("shortest_edge", "height", "width") if size.get(key) is not None}
    return sides.pop() if len(sides) == 1 and size.get("longest_edge") is None else None


def _disagreements(config: Any, preprocessor: dict[str, Any]) -> list[str]:
    """Everything in which model and processor differ, and every setting that would change pixels or tokens."""
    given, problems = preprocessor.get, []
    tile, patch = config.vision_config.image_size, config.vision_config.patch_size
    for key in ("size", "crop_size"):
        value = given(key) or (DEFAULT_SIDE if key == "size" else tile)
        if _square(value) != tile:
            problems.append(f"{key} is {short(value)} in the preprocessor, the vision tower takes {tile}x{tile}")
    given_points = given("image_grid_pinpoints")
    if given_points and (problem := point_problem(given_points)) is not None:
        return [f"image_grid_pinpoints of the preprocessor {problem}"]
    default_points = [(DEFAULT_SIDE * row, DEFAULT_SIDE * column) for row in range(1, 7) for column in range(1, 7)]
    points = _points(given_points or default_points)
    model_points = _points(config.image_grid_pinpoints)
    if points != model_points:
        differing = sorted(set(points) ^ set(model_points)) or "none, but the order differs"
        problems.append(
            f"image_grid_pinpoints: {len(points)} here, {len(model_points)} there, not shared: {short(differing)}"
        )
    aspect = getattr(config, "vision_aspect_ratio", "anyres_max_9")
    if _max_tiles(aspect) is None:
        problems.append(f"vision_aspect_ratio is {short(aspect)}; only 'anyres_max_N' with a number N is supported")
    if given("vision_aspect_ratio") not in (None, aspect):
        problems.append(
            f"vision_aspect_ratio is {short(aspect)} in config.json, {short(given('vision_aspect_ratio'))} elsewhere"
        )
    tokens = (tile // patch) ** 2
    if given("num_image_tokens") not in (None, tokens):
        problems.append(f"num_image_tokens is {short(given('num_image_tokens'))}, the vision tower gives {tokens}")
    strategies = {getattr(config, "vision_feature_select_strategy", "full"), given("vision_feature_select_strategy")}
    if strategies - {"full", None}:
        problems.append(f"vision_feature_select_strategy must be 'full'; got {short(strategies - {'full', None})}")
    for key in ("do_rescale", "do_normalize"):
        if given(key) is False:
            problems.append(f"{key} is false; only true is supported")
    if given("resample") not in (None, int(Image.Resampling.BICUBIC)):
        problems.append(f"resample is {short(given('resample'))}; only 3 (bicubic) is supported")
    if not math.isclose(given("rescale_factor") or 1 / 255, 1 / 255, rel_tol=1e-9):
        problems.append(f"rescale_factor is {given('rescale_factor')}; only 1/255 is supported")
    if not str(given("image_processor_type") or "LlavaOnevision").startswith("LlavaOnevision"):
        problems.append(f"image_processor_type is {given('image_processor_type')}; only LLaVA-OneVision's is supported")
    return problems
