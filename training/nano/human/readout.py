"""What a linear read-out can tell from a network's maps: the measure of a teacher and of a tower that imitated it.

Mean and deviation of every channel over the photo, then a ridge on the ratings of the training part. Figures are of the
validation parts: a tenth of BIQ2021's training split, cut by scene, and half of LIVE-C, which is never trained on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ..architecture import new_vision_tower, use_plain_attention
from ..tower import inner_tower, read_tower
from . import efficientnet
from .grid import over_photo, tiles, tower_layers
from .rated import Rated, cached, read, read_and_cut, within_subsets

SIDE = 512
"""Photos are read at this size, as nano's processor fits LIVE-C's 500 pixels into its grid; BIQ2021's have it."""

LAYERS = (2, 4, 6)
"""The tower's layers that are read out, counted from 1."""

ALPHAS = 10.0 ** np.arange(0, 7)
"""Penalties that the ridge chooses among."""

Describe = Callable[[torch.Tensor], torch.Tensor]
"""uint8 photos (N, SIDE, SIDE, 3) -> vectors (N, D)."""


def tower_description(checkpoint: str | Path) -> Describe:
    """Mean and deviation of LAYERS over all patches of the photo's sixteen tiles."""
    tower = new_vision_tower(0)
    use_plain_attention(tower)
    inner_tower(tower).load_state_dict(read_tower(checkpoint))

    def describe(photo: torch.Tensor) -> torch.Tensor:
        layers = tower_layers(tower, tiles(photo))
        return torch.cat([over_photo(layers[n - 1], len(photo)) for n in LAYERS], -1)

    return describe


def teacher_description(path: str | Path | None) -> Describe:
    """Mean and deviation of the teacher's eight maps."""
    teacher = efficientnet.load(path)
    return lambda photo: efficientnet.pooled(teacher(photo))


def photo_of(path: Path) -> torch.Tensor:
    """uint8 (1, SIDE, SIDE, 3), without what EXIF says of its orientation, as released procedures read it."""
    with Image.open(path) as image:
        fitted = image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(fitted))[None]


def describe_all(photos: Sequence[Rated], describe: Describe, cache: Path, bfloat16: bool) -> np.ndarray:
    """(N, D) float16, kept in the file ``cache``."""

    @torch.inference_mode()
    def vector(path: Path) -> np.ndarray:
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            return describe(photo_of(path))[0].half().numpy()

    return cached(cache, photos, vector)


class Ridge:
    """A linear map from standardised vectors, its penalty chosen by leaving one training photo out at a time."""

    def __init__(self, vectors: np.ndarray, ratings: np.ndarray):
        x = vectors.astype(np.float64)
        self.mean, self.deviation = x.mean(0), x.std(0) + 1e-6
        x, y = (x - self.mean) / self.deviation, ratings - ratings.mean()
        left, values, right = np.linalg.svd(x, full_matrices=False)
        projected = left.T @ y
        errors = []
        for alpha in ALPHAS:
            kept = values**2 / (values**2 + alpha)
            # the hat matrix' diagonal turns a residual into the error on a photo that was left out; 1 / N is the mean's
            own = (left**2) @ kept + 1 / len(y)
            errors.append(float((((y - left @ (kept * projected)) / (1 - own)) ** 2).mean()))
        self.alpha = float(ALPHAS[int(np.argmin(errors))])
        self.weights = right.T @ (values / (values**2 + self.alpha) * projected)
        self.offset = float(ratings.mean())

    def __call__(self, vectors: np.ndarray) -> np.ndarray:
        return (vectors.astype(np.float64) - self.mean) / self.deviation @ self.weights + self.offset


def drawn(photos: Sequence[Rated], count: int) -> list[Rated]:
    """The first ``count`` by the hash of their names: the same ones for every network."""
    return sorted(photos, key=lambda photo: hashlib.sha256(photo.path.name.encode()).digest())[:count]


def measure(
    rated: Path,
    cache: Path,
    thumbnails: Path,
    unseen: Path | None = None,
    tower: str | None = None,
    teacher: str | None = None,
    training: int = 2000,
    part: str = "validation",
    threads: int = 1,
    bfloat16: bool = False,
) -> dict[str, Any]:
    """Print and return rank correlations of a read-out of a tower, or of a teacher, taught on ``training`` photos.
    ``part``: "validation" of both databases, or once, at the end, "test"."""
    if (tower is None) == (teacher is None) or part not in ("validation", "test"):
        raise SystemExit("give either --tower or --teacher, and as --part validation or test")
    torch.set_num_threads(threads)
    describe = tower_description(tower) if tower else teacher_description(None if teacher == "imagenet" else teacher)
    cache.mkdir(parents=True, exist_ok=True)
    photos = read_and_cut(rated, thumbnails)
    taught = drawn([photo for photo in photos if photo.part == "training"], training)
    asked, away = ([p for p in some if p.part == part] for some in (photos, read(unseen) if unseen else []))
    known = describe_all([*taught, *asked], describe, cache / f"rated-{part}.npz", bfloat16)
    ridge = Ridge(known[: len(taught)], np.array([photo.mos for photo in taught]))
    values = ridge(known[len(taught) :])
    found: dict[str, Any] = {"training": len(taught), "alpha": ridge.alpha, "part": part}
    found["rated"] = within_subsets(asked, values)
    if part == "test":
        found["without twins"] = within_subsets(asked, values, lambda photo: not photo.twin)
    if away:
        distant = ridge(describe_all(away, describe, cache / f"unseen-{part}.npz", bfloat16))
        found["unseen"] = within_subsets(away, distant)["all"]
    print(json.dumps(found, indent=2))
    return found
