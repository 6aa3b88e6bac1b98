"""Rows and images as what a model is trained on. What can be wrong with them is found before the first step."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset

from qsit_plugin.chat import Conversation
from qsit_plugin.images.reading import ImageError, read_image
from qsit_plugin.protocol import ScoreProfile
from qsit_plugin.tiling import Tiling

from ..config import ConfigError
from .checks import Problems
from .image_checks import Size, check_images
from .rows import RowError, TrainingRow
from .sampler import seeded
from .tokens import RowTokenizer, Tokens

log = logging.getLogger(__name__)

BAD_WORDING = "unusable text"
TOO_LONG = "too many tokens"


class DamagedImage(ConfigError):
    """An image of which only the head is whole, so that it is found when its row's turn comes.

    A DataLoader's worker makes an error anew from a text that ends in the error's own, below a traceback: only that end
    is kept.
    """

    def __init__(self, message: str):
        super().__init__(message.split(f"{type(self).__name__}: ")[-1].strip())


@dataclass(frozen=True)
class Sample:
    """One row, ready for a batch. ``tiles``: uint8 (n, 3, S, S), those of an only image as at inference, one for each
    of several. Of each image: ``sizes`` (width, height), and ``image_tokens``, how many it has."""

    row: TrainingRow
    tokens: Tokens
    tiles: torch.Tensor
    sizes: tuple[Size, ...]
    image_tokens: tuple[int, ...]


def views(pictures: Sequence[Image.Image], tiling: Tiling) -> np.ndarray:
    """What the model sees of a row's images: uint8 (n, 3, S, S).

    An only image is cut as at inference. Of several each is one tile, padded to a square of the mean colour, as
    transformers' image processor does it: tiles of all would be too many tokens.
    """
    if len(pictures) == 1:
        return tiling.cut(pictures[0])
    tiles = np.empty((len(pictures), 3, tiling.tile, tiling.tile), np.uint8)
    colour = tuple(int(mean * 255) for mean in tiling.mean)
    for tile, picture in zip(tiles, pictures, strict=True):
        side = max(picture.size)
        square = Image.new("RGB", (side, side), colour)
        square.paste(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
        tile[...] = np.asarray(square.resize(tiles.shape[2:], Image.Resampling.BICUBIC)).transpose(2, 0, 1)
    return tiles


@lru_cache(maxsize=4096)
def tokens_of_images(sizes: tuple[Size, ...], tiling: Tiling) -> tuple[int, ...]:
    """How many tokens each image of a row has; of several each has those of its tile and a newline."""
    if len(sizes) == 1:
        return (tiling.token_count(*sizes[0]),)
    return (tiling.side**2 + 1,) * len(sizes)


class QualityDataset(Dataset[Sample]):
    """The rows of a mixture in its order, their texts tokenised, their images opened one by one as they are asked for.

    Args:
        rows: what the sampler's indices count.
        folder: that the rows' image paths are relative to.
        max_tokens: the longest row that is allowed, images included.
        verify: decode every image here, in ``workers`` processes, instead of reading its head.
        skip_damaged: put another row of the same source and task in place of one with a missing or damaged image,
            chosen by ``seed`` and the row's index alone: a run that goes on, and one that verifies, choose the same.
        say: takes the lines on what is verified and left out.

    Raises ConfigError that counts and lists what is wrong: a missing or unreadable image, a wording that is not the
    profile's, a row of too many tokens.
    """

    def __init__(
        self,
        rows: Sequence[TrainingRow],
        folder: str | Path,
        *,
        conversation: Conversation,
        profile: ScoreProfile,
        tiling: Tiling,
        stop_ids: Collection[int],
        max_tokens: int,
        verify: bool = False,
        skip_damaged: bool = False,
        workers: int = 0,
        seed: int = 0,
        say: Callable[[str], None] = log.warning,
    ):
        self.rows, self.folder, self.tiling, self.max_tokens = rows, Path(folder), tiling, max_tokens
        self.skip_damaged, self.seed, self.image_token_id = skip_damaged, seed, conversation.image_token_id
        self.tokens: list[Tokens] = []
        self.lengths: list[int] = []
        """Tokens of each row, images included."""
        names = dict.fromkeys(name for row in rows for name in row.images)
        sizes, self.faults = check_images(self.folder, names, verify=verify, workers=workers, say=say)
        self._numbers = {name: number for number, name in enumerate(names)}
        self._skipped = torch.zeros(len(names), dtype=torch.bool)
        if skip_damaged:
            self._skipped.share_memory_()  # with the workers that find them
        problems, damaged, tokenize = Problems(), Problems(), RowTokenizer(conversation, profile, stop_ids)
        for row in rows:
            faults = [self.faults[name] for name in row.images if name in self.faults]
            for kind, text in faults:
                (damaged if skip_damaged else problems).add(kind, f"{row.id}: {text}")
            try:
                self.tokens.append(tokenize(row))
            except RowError as error:
                problems.add(BAD_WORDING, f"{row.id}: {error}")
                continue
            counts = () if faults else tokens_of_images(tuple(sizes[name] for name in row.images), tiling)
            self.lengths.append(len(self.tokens[-1].ids) + sum(counts) - len(counts))
            if self.lengths[-1] > max_tokens:
                problems.add(TOO_LONG, self._too_long(row, self.lengths[-1], sum(counts)))
        if problems:
            raise ConfigError(
                "\n".join(problems.lines()) + f"\n{problems.total():,} of {len(rows):,} rows cannot be trained on, so "
                "nothing is: fix them, or take them out of the file (skip_damaged: true leaves out missing and damaged "
                "images)"
            )
        if damaged:
            whole = [row for row in rows if self.faults.keys().isdisjoint(row.images)]
            for line in damaged.lines():
                say(line)
            for source, task in {(row.source, row.task) for row in rows} - {(row.source, row.task) for row in whole}:
                raise ConfigError(_none_whole(source, task))
            lost = len(rows) - len(whole)
            say(f"skip_damaged: {lost:,} of {len(rows):,} rows are left out; others of their sources take their places")

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Sample:
        """Raises DamagedImage, with ``skip_damaged`` only where no row of the source and task has whole images."""
        for choice in self._choices(index):
            try:
                return self._sample(choice)
            except ImageError as error:
                if not self.skip_damaged:
                    raise DamagedImage(
                        f"{error}. Put a whole image in its place, or give skip_damaged: true; a run that has begun "
                        "then goes on with --resume"
                    ) from None
        raise DamagedImage(_none_whole(self.rows[index].source, self.rows[index].task))

    def skipped(self) -> list[str]:
        """The images that were found damaged after the first step, by this process or its workers."""
        return [name for name, number in self._numbers.items() if self._skipped[number]]

    def longest(self, count: int) -> list[int]:
        """Indices of the longest rows, longest first: the batch that needs most memory."""
        order = sorted(range(len(self.rows)), key=lambda index: -self.lengths[index])
        return [order[number % len(order)] for number in range(count)]

    def _sample(self, index: int) -> Sample:
        row = self.rows[index]
        pictures = [self._read(name) for name in row.images]
        sizes = tuple(picture.size for picture in pictures)
        tiles = torch.from_numpy(views(pictures, self.tiling))
        return Sample(row, self.tokens[index], tiles, sizes, tokens_of_images(sizes, self.tiling))

    def _choices(self, index: int) -> Iterator[int]:
        """The row itself, then the others of its source and task in an order of this row's own; none with a fault."""
        row = self.rows[index]
        yield from self._whole([index])
        others = [n for n, r in enumerate(self.rows) if n != index and (r.source, r.task) == (row.source, row.task)]
        yield from self._whole(np.array(others, int)[seeded(self.seed, row.source, 3, index).permutation(len(others))])

    def _whole(self, indices: Iterable[int]) -> Iterator[int]:
        return (int(index) for index in indices if self.faults.keys().isdisjoint(self.rows[index].images))

    def _read(self, name: str) -> Image.Image:
        try:
            return read_image(self.folder / name)
        except ImageError as error:
            if self.skip_damaged and not self._skipped[self._numbers[name]]:
                self._skipped[self._numbers[name]] = True
                log.warning("skip_damaged: %s; another row of the source takes the place of its rows", error)
            raise

    def _too_long(self, row: TrainingRow, length: int, image_tokens: int) -> str:
        plural = "s" * (len(row.images) > 1)
        images = f", {image_tokens:,} of its image{plural} {', '.join(row.images)}" if row.images else ""
        return (
            f"{row.id}: {length:,} tokens{images}; allowed are {self.max_tokens:,}. Nothing is ever cut off: raise "
            "max_tokens if the model allows it, shrink the image, or take fewer image_grid_pinpoints (in config.json "
            "and preprocessor_config.json of the base)"
        )


def _none_whole(source: str, task: str) -> str:
    return (
        f"skip_damaged: no row of the source {source!r} with the task {task} has whole images, so none can take the "
        "place of another: see whether images names the right folder, or take the source out"
    )


def soft_label_gap(rows: Sequence[TrainingRow]) -> tuple[int, int]:
    """(ratings without ``level_probs``, ratings)."""
    ratings = [row for row in rows if row.task == "score"]
    return sum(row.level_probs is None for row in ratings), len(ratings)


def supervised_texts(dataset: QualityDataset, tokenizer: Any) -> Iterator[str]:
    """Of the first row of each task: its tokens as text, with what is learned between « and »."""
    shown = set()
    for row, tokens in zip(dataset.rows, dataset.tokens, strict=True):
        if row.task in shown:
            continue
        shown.add(row.task)
        text, image = "", tokenizer.decode([dataset.image_token_id])
        marked = zip(tokens.ids.tolist(), tokens.learned.tolist(), strict=True)
        for learned, run in groupby(marked, key=lambda pair: pair[1]):
            text += ("«{}»" if learned else "{}").format(tokenizer.decode([token for token, _ in run]))
        text = text.replace(image, "[image]")
        yield f"{row.task}, {row.id}, {int(tokens.learned.sum())} tokens learned (between « and »):\n{text}"
