"""Batches of the joint stage: whole images, tiled as the processor does it, with five questions or the score alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch
from PIL import Image

from qsit_plugin.chat import Conversation
from qsit_plugin.tiling import Tiling

from ..synthetic import photos, text
from ..synthetic.augmentation import augmented, framed
from ..synthetic.distortions import Defect, degraded, severity_score
from .architecture import TILE
from .loop import Numbered
from .turns import FILLS, NO_OPTION, Tokens, padded, tokens_of

GRIDS = (
    ((1, 1),),
    ((1, 2), (2, 1), (2, 2)),
    ((2, 3), (3, 2), (3, 3)),
    ((3, 4), (4, 3), (4, 4), (4, 6), (6, 4)),
)
EARLY, LATE = (0.85, 0.12, 0.03, 0.0), (0.4, 0.27, 0.18, 0.15)
"""Tile grids (rows, columns) by cost, and their shares early and late: a large grid costs as much as ten small ones,
and questions are learned on the small ones just as well."""

TO_SCORE = (0.15, 0.2, 0.25, 0.4)
"""The shares where only the score is asked for: what one tile leaves in doubt, many together settle, if that is
learned."""

TOKENS_PER_BATCH = 12_000

FILED = 0.3
"""Share of the pairs that are one view twice, lossless and as a photo file is: with a label each and no pair, a JPEG of
quality 95 still scored above its lossless original on 25 of 35 photos."""

FILED_CLEAN = 0.7
"""Share of these of which nothing else is done to the view."""

CLEAN_PAIRS_TO_SCORE = 0.4
"""``photos.CLEAN_PAIRS`` where only the score is asked for: there is more to grade than to tell from clean."""


@dataclass
class Batch:
    """B images of one size, in pairs (milder, stronger), with five turns each, or with the score's alone."""

    tiles: torch.Tensor  # uint8 (B, views, 3, S, S)
    size: tuple[int, int]  # width, height of every image
    scores: torch.Tensor  # (B,) severity scores on [1, 5]
    ids: torch.Tensor  # (B, T) text tokens after the image, all turns in a row, padded with 0
    turn: torch.Tensor  # (B, T) number of the turn a token belongs to, -1 = padding
    position: torch.Tensor  # (B, T) place of the token inside its turn
    labels: torch.Tensor  # (B, T) token that follows, -100 where nothing is to be learned
    role: torch.Tensor  # (B, T) what the label is: 0 rest, 1 level, 2 letter, 3 first word of a text
    mark: torch.Tensor  # (B, T) ends of options, see turns.option_marks
    filed: torch.Tensor | None = None  # bool (B/2,): pairs of one view, lossless and as a file


@dataclass(eq=False)
class Batches(Numbered):
    """Batches by number, each of one tile grid; every one follows from (seed, number). The first ``early`` ones are
    mostly of small grids; in a share ``scoring`` of all only the score is asked for."""

    images: list[Image.Image]
    conversation: Conversation
    tiling: Tiling
    seed: int
    early: int
    augmentation: float = 0.0
    scoring: float = 0.0
    levels: Sequence[float] | None = None
    """What each of the images is worth as it is, on 1 to 5; CLEAN where none are given."""

    def __getitem__(self, number: int) -> Batch:
        rng = np.random.default_rng([self.seed, 1, number])
        only_score = rng.random() < self.scoring
        shares = TO_SCORE if only_score else EARLY if number < self.early else LATE
        return self.batch(rng, shares, only_score)

    def batch(self, rng: np.random.Generator, shares: tuple[float, ...] = LATE, only_score: bool = False) -> Batch:
        """The next batch of ``rng``: five turns an image, or the score alone, which costs a third on one tile."""
        rows, columns = text.pick(GRIDS[rng.choice(len(GRIDS), p=shares)], rng)
        size = self._size(rows, columns, rng)
        text_tokens = 30 if only_score else 300
        pairs = max(1, min(16, TOKENS_PER_BATCH // (self.tiling.token_count(*size) + text_tokens) // 2))
        clean = CLEAN_PAIRS_TO_SCORE if only_score else photos.CLEAN_PAIRS
        tiles, scores, texts, filed = [], [], [], rng.random(pairs) < FILED
        for as_file in filed:
            for image, defects, score in self._pair(size, rng, clean, as_file):
                tiles.append(torch.from_numpy(self.tiling.cut(image)))
                scores.append(score)
                turns = [text.score_turn(score)] if only_score else text.turns_for(defects, score, rng)
                texts.append(self._tokens(turns, rng))
        known = torch.tensor(scores, dtype=torch.float32)
        batch = Batch(torch.stack(tiles), size, known, *pad(texts))
        batch.filed = torch.from_numpy(filed)
        return batch

    def _size(self, rows: int, columns: int, rng: np.random.Generator) -> tuple[int, int]:
        """A (width, height) that the tiling puts on this grid: exact, or enlarged to it, a small photo up to twice."""
        for _ in range(50):
            width, height = (round(n * TILE * rng.uniform(max(0.5, 1 - 1 / n), 1.0)) for n in (columns, rows))
            if rng.random() < 0.4:
                width, height = columns * TILE, rows * TILE
            if self.tiling.grid(width, height) == (rows, columns):
                return width, height
        return columns * TILE, rows * TILE

    def _pair(
        self, size: tuple[int, int], rng: np.random.Generator, clean: float, filed: bool
    ) -> Iterator[tuple[Image.Image, tuple[Defect, ...], float]]:
        """Two versions of one region, with their scores: the milder first, or where ``filed`` the lossless one and its
        file. Three in ten are distorted larger and shrunk, as big photos are."""
        number = int(rng.integers(len(self.images)))
        region, shown = self._region(self.images[number], size, rng)
        region = augmented(region, self.images, rng, self.augmentation)
        seed, frame = int(rng.integers(2**31)), int(rng.integers(2**31))
        plans = photos.pick_pair(region, rng, photos.DOUBTFUL, clean)
        files: tuple[bool | None, bool | None] = (False, True) if filed else (None, None)
        if filed:
            plans = [() if rng.random() < FILED_CLEAN else plans[0]] * 2
        for plan, file in zip(plans, files, strict=True):
            image = photos.apply(region, plan, seed, file)
            resized = image.resize(size, Image.Resampling.BICUBIC) if image.size != size else image
            defects = photos.defects_of(plan, shown)
            score = severity_score(defects)
            if self.levels is not None:
                score = degraded(self.levels[number], score)
            yield framed(resized, np.random.default_rng(frame)), defects, score

    def _region(self, photo: Image.Image, size: tuple[int, int], rng: np.random.Generator) -> tuple[Image.Image, float]:
        """A region with something to see in it, and how many pixels of the view one of its pixels becomes."""
        width, height = size
        scale = rng.uniform(0.35, 1.0) if rng.random() < 0.3 else 1.0
        fit = min(1.0, photo.width / (width / scale), photo.height / (height / scale))
        box_width, box_height = int(width / scale * fit), int(height / scale * fit)
        shown = width / box_width
        region = photos.crop_with_content(photo, box_width, box_height, rng, tries=4)
        if rng.random() < 0.5:
            region = region.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        if shown > 1.0:
            return region.resize(size, Image.Resampling.LANCZOS), 1.0  # a small photo: enlarge before distorting
        return region, shown

    def _tokens(self, turns: list[text.Turn], rng: np.random.Generator) -> list[Tokens]:
        """Turns as tokens. One in seven times the naming follows the description in one conversation: there the answer
        stands in the text, which teaches how a choice is made before the image is understood."""
        tokens = [tokens_of(turn, self.conversation) for turn in turns]
        if len(turns) == 1 or rng.random() > 0.15:
            return tokens
        rating, naming, aspect, describe, more = tokens
        glue = self.conversation.tokenizer.encode("\n<|im_start|>user", add_special_tokens=False)
        quiet = (glue, *([fill] * len(glue) for fill in FILLS[1:]))
        joined = tuple(a + g + b for a, g, b in zip(describe, quiet, naming, strict=True))
        return [rating, joined, aspect, more]  # type: ignore[list-item]


def pad(texts: list[list[Tokens]]) -> list[torch.Tensor]:
    """[ids, turn, position, labels, role, mark], each (B, T): an image's turns in a row, padded on the right."""
    rows = []
    for turns in texts:
        parts = [(ids, [n] * len(ids), range(len(ids)), *others) for n, (ids, *others) in enumerate(turns)]
        rows.append([list(chain.from_iterable(column)) for column in zip(*parts, strict=True)])
    return padded(rows, (0, -1, 0, -100, 0, NO_OPTION))
