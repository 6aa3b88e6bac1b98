"""What a linear read-out can tell from a network's maps: the measure of a teacher and of a tower that imitated it.

Mean and deviation of every channel over the photo, then a ridge on the ratings of the training part. Figures are of the
validation parts: a tenth of BIQ2021's training split, cut by scene, and half of LIVE-C, which is never trained on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from qsit_plugin.row_file import replacing

from ..architecture import new_vision_tower
from ..attention import use_plain_attention
from ..tower import inner_tower, read_tower
from . import efficientnet
from .imitation import tiles, tower_layers
from .rated import Rated, read, read_and_cut, within_subsets

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
        chosen = [layers[n - 1].reshape(len(photo), -1, layers[0].shape[-1]) for n in LAYERS]
        return torch.cat([part for x in chosen for part in (x.mean(1), x.std(1, correction=0))], -1)

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


@torch.inference_mode()
def describe_all(
    photos: Sequence[Rated], describe: Describe, cache: str | Path | None = None, bfloat16: bool = False
) -> np.ndarray:
    """(N, D) float16. What the file ``cache`` holds is not computed again; it is written every 200 photos."""
    place = Path(cache) if cache else None
    found: dict[str, np.ndarray] = {}
    if place and place.exists():
        with np.load(place) as stored:
            found = dict(zip(stored["names"].tolist(), stored["vectors"], strict=True))
    left = [photo for photo in photos if photo.path.name not in found]
    for number, photo in enumerate(left, start=1):
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            vector = describe(photo_of(photo.path))[0]
        found[photo.path.name] = vector.half().numpy()
        if number % 200 == 0 or number == len(left):
            print(f"described {number} of {len(left)}", flush=True)
            if place:
                with replacing(place) as fresh:
                    np.savez(fresh, names=np.array(list(found)), vectors=np.stack(list(found.values())))
    return np.stack([found[photo.path.name] for photo in photos])


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


def figures(
    photos: Sequence[Rated],
    unseen: Sequence[Rated],
    describe: Describe,
    count: int,
    cache: Path,
    part: str,
    bfloat16: bool = False,
) -> dict[str, object]:
    """Rank correlations of a read-out taught on ``count`` training photos, on ``part`` of both databases."""
    training = drawn([photo for photo in photos if photo.part == "training"], count)
    asked, away = ([photo for photo in some if photo.part == part] for some in (photos, unseen))
    cache.mkdir(parents=True, exist_ok=True)
    known = describe_all([*training, *asked], describe, cache / "rated.npz", bfloat16)
    ridge = Ridge(known[: len(training)], np.array([photo.mos for photo in training]))
    values = ridge(known[len(training) :])
    found: dict[str, object] = {"training": len(training), "alpha": ridge.alpha, "part": part}
    found["rated"] = _rounded(within_subsets(asked, values))
    if part == "test":
        found["without twins"] = _rounded(within_subsets(asked, values, lambda photo: not photo.twin))
    if away:
        distant = ridge(describe_all(away, describe, cache / "unseen.npz", bfloat16))
        found["unseen"] = _rounded(within_subsets(away, distant))["all"]
    return found


def _rounded(figures: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in figures.items()}


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
) -> None:
    """Print the figures of a tower or of a teacher. ``part``: "validation", or once, at the end, "test"."""
    if (tower is None) == (teacher is None) or part not in ("validation", "test"):
        raise SystemExit("give either --tower or --teacher, and as --part validation or test")
    torch.set_num_threads(threads)
    describe = tower_description(tower) if tower else teacher_description(None if teacher == "imagenet" else teacher)
    photos, others = read_and_cut(rated, thumbnails), read(unseen) if unseen else []
    print(json.dumps(figures(photos, others, describe, training, cache, part, bfloat16), indent=2))
