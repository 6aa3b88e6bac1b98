"""Batches of photos that people rated, for the joint stage: the score, or five questions with answers that fit the
rating.

Nobody said what is wrong with these photos. Where people rate one low, the tower's head for kinds says what it blames;
where they rate it high, nothing is wrong: the words follow the number, not the other way round.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from qsit_plugin.chat import Conversation
from qsit_plugin.tiling import Tiling

from ...synthetic import text
from ...synthetic.distortions import KINDS, Defect
from ..batches import Batch, pad
from ..loop import Numbered
from ..tower import TowerWithHeads
from ..turns import tokens_of
from .crops import Subsets, flipped_crop
from .grid import tiles
from .rated import Rated, cached

SIDE = 512
"""Of nearly all photos of BIQ2021; the few others are left out."""

WHOLE = 0.6
"""Share of the batches of whole photos; the others are of crops, since other photos have other grids."""

SMALLEST = 400
"""Sides of the crops, in pixels: what is cut off must not decide the rating."""

FAULTLESS = 3.8
"""From this level on, 1 to 5, nothing is named. Not 3.5, where "good" begins: where nano is not sure, what it believes
of faults is split over twelve kinds, so "nothing" was the likeliest word of many photos that it scored fair."""

AUTHENTIC = (
    "blur", "motion blur", "noise", "compression artifacts", "underexposure", "overexposure", "low contrast",
    "faded color", "oversharpening", "oversaturation", "harsh contrast", "color cast",
)  # fmt: skip
"""What a camera and its owner do to a photo; lost blocks and stripes are not blamed for a rating."""


def blamed(photo: Rated, shares: np.ndarray) -> tuple[Defect, ...]:
    """The one fault of a photo: the kind of the largest of its (KINDS,) shares among AUTHENTIC, as strong as the rating
    is low; none from FAULTLESS on."""
    if photo.level >= FAULTLESS:
        return ()
    name = max(AUTHENTIC, key=lambda kind: shares[KINDS.index(kind)])
    return (Defect(name, float(np.clip((4.0 - photo.level) / 3.0, 0.1, 1.0))),)


def kinds_of(photos: Sequence[Rated], seer: TowerWithHeads, cache: Path) -> dict[str, tuple[Defect, ...]]:
    """``blamed`` of every photo, by its name; the shares are kept in the file ``cache``."""

    @torch.inference_mode()
    def shares(path: Path) -> np.ndarray:
        with Image.open(path) as image:
            pixels = torch.from_numpy(np.array(image.convert("RGB")))[None]
        views = ((tiles(pixels)[::2] + 1) * 127.5).permute(0, 2, 3, 1)  # every other tile says enough
        return seer(views)[1][:, : len(KINDS)].mean(0).numpy()

    low = [photo for photo in photos if photo.level < FAULTLESS]
    found = dict(zip((p.path.name for p in low), cached(cache, low, shares), strict=True))
    return {p.path.name: blamed(p, found.get(p.path.name, np.zeros(0))) for p in photos}


@dataclass(eq=False)
class RatedBatches(Numbered):
    """Batches by number, each of one subset and one size; every one follows from (seed, number)."""

    photos: Sequence[Rated]
    defects: dict[str, tuple[Defect, ...]]
    conversation: Conversation
    tiling: Tiling
    seed: int
    scoring: float
    count: int = 16

    def __post_init__(self) -> None:
        self.subsets = Subsets(self.photos)

    def __getitem__(self, number: int) -> Batch:
        rng = np.random.default_rng([self.seed, 5, number])
        some = self.subsets.draw(rng)
        size = (SIDE, SIDE)
        if rng.random() > WHOLE:
            size = (int(rng.integers(SMALLEST, SIDE + 1)), int(rng.integers(SMALLEST, SIDE + 1)))
        only_score = rng.random() < self.scoring
        cut, scores, texts = [], [], []
        for _ in range(self.count if only_score else self.count * 3 // 4):
            photo = some[rng.integers(len(some))]
            score, defects = photo.level, self.defects[photo.path.name]
            cut.append(torch.from_numpy(self.tiling.cut(flipped_crop(photo.path, size, rng))))
            scores.append(score)
            turns = [text.score_turn(score)] if only_score else text.turns_for(defects, score, rng)
            texts.append([tokens_of(turn, self.conversation) for turn in turns])
        return Batch(torch.stack(cut), size, torch.tensor(scores, dtype=torch.float32), *pad(texts))
