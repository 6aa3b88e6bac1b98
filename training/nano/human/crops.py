"""Crops of photos that people rated, and of clean ones: what the imitation looks at, with what people said of them.

Some crops are distorted first, some lose their colours: the tower shall see both as the teacher does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ...synthetic.distortions import degraded, severity_score
from ...synthetic.photos import HARD, apply, defects_of, find, pick_name, random_crop, split
from ..loop import Numbered
from .rated import Rated, is_as_large, read_and_cut

DISTORTED, GREY = 0.25, 0.05
"""Share of the crops that are distorted, and that lose their colours."""

UNRATED = "unrated"
"""The subset of the clean photos."""

GOOD = 0.75
"""Rated photos from here on are clean enough for synthetic distortions, where there is room for them in memory."""

DRAWINGS = 60
"""Drawings among the clean photos."""

SHARES = {"ss03": 2.0}
"""How often a subset is drawn, 1 where none is given: ss03 has more photos than the others together."""


class Subsets:
    """Photos by subset, of which batches are made: across subsets the subset's own mean would be learned instead of an
    order."""

    def __init__(self, photos: Sequence[Rated]):
        self.names = sorted({photo.subset for photo in photos})
        self.of = {name: [photo for photo in photos if photo.subset == name] for name in self.names}
        shares = np.array([SHARES.get(name, 1.0) for name in self.names])
        self.shares = shares / shares.sum()

    def draw(self, rng: np.random.Generator) -> list[Rated]:
        """All photos of one subset, drawn by SHARES."""
        return self.of[self.names[rng.choice(len(self.names), p=self.shares)]]


@dataclass
class Crops:
    """N crops of one subset."""

    pixels: torch.Tensor  # uint8 (N, side, side, 3)
    levels: torch.Tensor  # (N,) what people said, on 1 to 5, less what a distortion costs; NaN where nobody said it
    whole: torch.Tensor  # bool (N,): nothing was done to it


@dataclass(eq=False)
class CropBatches(Numbered):
    """Batches by number: every one follows from (seed, number)."""

    photos: Sequence[Rated]
    count: int
    side: int
    seed: int

    def __post_init__(self) -> None:
        self.subsets = Subsets(self.photos)

    def __getitem__(self, number: int) -> Crops:
        rng = np.random.default_rng([self.seed, number])
        some = self.subsets.draw(rng)
        pixels, levels, whole = zip(
            *(self._crop(some[rng.integers(len(some))], rng) for _ in range(self.count)), strict=True
        )
        return Crops(torch.from_numpy(np.stack(pixels)), torch.tensor(levels), torch.tensor(whole))

    def _crop(self, photo: Rated, rng: np.random.Generator) -> tuple[np.ndarray, float, bool]:
        image = flipped_crop(photo.path, (self.side, self.side), rng)
        grey, distorted = rng.random() < GREY, rng.random() < DISTORTED
        if grey:
            image = image.convert("L").convert("RGB")
        level = photo.level
        if distorted:
            plan = ((pick_name(image, rng, HARD), float(rng.random())),)
            image = apply(image, plan, int(rng.integers(2**31)))
            level = degraded(level, severity_score(defects_of(plan, 1.0)))
        return np.asarray(image), level, not (grey or distorted)


def flipped_crop(path: Path, size: tuple[int, int], rng: np.random.Generator) -> Image.Image:
    """A region of this size at a random place of a photo, in half of the cases its mirror image."""
    with Image.open(path) as stored:
        image = random_crop(stored.convert("RGB"), *size, rng)
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.random() < 0.5 else image


def clean_of(photos: Sequence[Rated], most: int) -> list[Rated]:
    """What synthetic distortions are made of: the clean photos, and the first ``most`` that people call good."""
    good = [photo for photo in photos if photo.mos >= GOOD]
    return [photo for photo in photos if photo.subset == UNRATED] + good[:most]


def photos_of(rated_folder: Path, photo_folder: Path, cache: Path, side: int) -> list[Rated]:
    """Rated photos of the training part, and the clean ones of the split's training half, of which nobody said
    anything."""
    people = [photo for photo in read_and_cut(rated_folder, cache) if photo.part == "training"]
    clean = [Rated(path, float("nan"), "training", UNRATED) for path in split(find(photo_folder))[0]]
    return [photo for photo in people + clean if is_as_large(photo.path, side)]
