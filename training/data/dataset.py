"""Rows and images as what a model is trained on. What can be wrong with them is found before the first step."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch.utils.data import Dataset

from qsit_plugin.chat import Conversation
from qsit_plugin.images.reading import ImageError, read_image
from qsit_plugin.protocol import ScoreProfile
from qsit_plugin.tiling import Tiling

from ..config import ConfigError
from .problems import MISSING_IMAGE, Problems
from .rows import RowError, TrainingRow
from .tokens import Tokens, tokens_of

BAD_WORDING = "unusable text"
UNREADABLE = "unreadable image"
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
    """One row, ready for a batch. ``tiles``: uint8 (n, 3, S, S), as at inference. ``size``: (width, height)."""

    row: TrainingRow
    tokens: Tokens
    tiles: torch.Tensor
    size: tuple[int, int]
    image_tokens: int


class QualityDataset(Dataset[Sample]):
    """The rows of a mixture in its order, their texts tokenised, their images opened one by one as they are asked for.

    Args:
        rows: what the sampler's indices count.
        folder: that the rows' image paths are relative to.
        max_tokens: the longest row that is allowed, image included.

    Raises ConfigError that counts and lists what is wrong: a missing or unreadable image (only its head is read here),
    a wording that is not the profile's, a row of too many tokens.
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
    ):
        self.rows, self.folder, self.tiling, self.max_tokens = rows, Path(folder), tiling, max_tokens
        self.tokens: list[Tokens] = []
        self.lengths: list[int] = []
        """Tokens of each row, image included."""
        problems, sizes = Problems(), dict[str, int]()
        for row in rows:
            try:
                tokens = tokens_of(row, conversation, profile, stop_ids)
            except RowError as error:
                problems.add(BAD_WORDING, f"{row.id}: {error}")
                continue
            length = self._length(row, tokens, sizes, problems)
            if length is not None:
                self.tokens.append(tokens)
                self.lengths.append(length)
        if problems:
            raise ConfigError(
                "\n".join(problems.lines()) + f"\n{problems.total():,} of {len(rows):,} rows cannot be trained on, so "
                "nothing is: mend them, or take them out of the file"
            )

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Sample:
        """Raises DamagedImage."""
        row = self.rows[index]
        try:
            picture = read_image(self.folder / row.image)
        except ImageError as error:
            raise DamagedImage(
                f"{error}. Put a whole image in its place; a run that has begun then goes on with --resume"
            ) from None
        count = self.tiling.token_count(*picture.size)
        return Sample(row, self.tokens[index], torch.from_numpy(self.tiling.cut(picture)), picture.size, count)

    def longest(self, count: int) -> list[int]:
        """Indices of the longest rows, longest first: the batch that needs most memory."""
        order = sorted(range(len(self.rows)), key=lambda index: -self.lengths[index])
        return [order[number % len(order)] for number in range(count)]

    def _length(self, row: TrainingRow, tokens: Tokens, known: dict[str, int], problems: Problems) -> int | None:
        path = self.folder / row.image
        if row.image not in known:
            try:
                with Image.open(path) as picture:
                    known[row.image] = self.tiling.token_count(*picture.size)
            except FileNotFoundError:
                problems.add(MISSING_IMAGE, f"{row.id}: {row.image} is not in {self.folder}")
                return None
            except (OSError, ValueError, Image.DecompressionBombError) as error:
                problems.add(UNREADABLE, f"{row.id}: {path}: {error}")
                return None
        length = known[row.image] + tokens.length
        if length > self.max_tokens:
            problems.add(
                TOO_LONG,
                f"{row.id}: {length:,} tokens, {known[row.image]:,} of its image {row.image}; allowed are "
                f"{self.max_tokens:,}. Images are never cut off: raise max_tokens if the model allows it, shrink it, "
                "or take fewer image_grid_pinpoints (in config.json and preprocessor_config.json of the base)",
            )
        return length


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
        text, learning = f"{tokenizer.decode(tokens.before.tolist())}[image]", False
        run: list[int] = []
        for token, learned in zip([*tokens.after.tolist(), None], [*tokens.learned.tolist(), False], strict=True):
            if learned != learning or token is None:
                text += ("«{}»" if learning else "{}").format(tokenizer.decode(run))
                run, learning = [], learned
            run.append(token)
        yield f"{row.task}, {row.id}, {int(tokens.learned.sum())} tokens learned (between « and »):\n{text}"
