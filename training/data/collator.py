"""Samples -> one batch. Nothing of an image is padded or cut off; texts are padded on the right.

B samples, I images and N tiles of all of them, T tokens of the longest, K places at which any of them learns a token,
L ratings.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch

from ..config import RunConfig
from .dataset import Sample
from .rows import TASKS, TrainingRow

IGNORED = -100
NO_SOURCE = -1
"""Stands for a source where there is nothing to compare: no rating, or one without a soft label."""

Batch = dict[str, torch.Tensor]


def source_number(row: TrainingRow) -> int:
    """A number from 0 up that all processes have for the row's source; ``NO_SOURCE`` for a row that no other is
    compared with."""
    compared = row.task == "score" and row.level_probs is not None
    return zlib.crc32(row.source.encode()) if compared else NO_SOURCE


@dataclass(frozen=True)
class Collator:
    """What a DataLoader takes as ``collate_fn``."""

    image_token_id: int
    pad_token_id: int
    config: RunConfig

    def __call__(self, samples: Sequence[Sample]) -> Batch:
        """The batch.

        - ``tiles`` uint8 (N, 3, S, S), ``image_sizes`` (I, 2) as (height, width), ``images`` (B,): how many a row has
        - ``input_ids`` (B, T)
        - ``places`` (K,): where the logits are needed; ``targets`` (B, K): the token that follows, -100 for none
        - ``weights`` float (B, K): of each token within the sums of ``amounts``; ``task`` (B,): number of the task
        - ``level_row``, ``level_place`` (L,): where in (B, K) the level words are; ``level_probs`` float (L, 5), NaN
          where a row has none
        - ``pairs`` (P, 2): of two ratings of one source, as numbers in L; ``level_source`` (L,): of every rating
        - ``amounts`` float (3,): what the losses of each task, and of the pairs, are divided by

        Raises ValueError for a batch in which nothing is learned.
        """
        laid = [self._laid_out(sample) for sample in samples]
        ids, learned, levels = zip(*laid, strict=True)
        places = sorted({place for row in learned for place in row})
        if not places:
            raise ValueError(
                f"no token is learned in the batch of {', '.join(sample.row.id for sample in samples)}: its rows have "
                "no answers; convert them again with qsit train convert"
            )
        column = {place: number for number, place in enumerate(places)}
        targets = torch.full((len(samples), len(places)), IGNORED)
        weights = torch.zeros(targets.shape)
        for number, row in enumerate(learned):
            for place in row:
                targets[number, column[place]] = ids[number][place + 1]
                weights[number, column[place]] = 1.0
            if (level := levels[number]) is not None:
                weights[number, column[level]] = self.config.level_weight
        if self.config.normalize != "token":
            weights /= weights.sum(-1, keepdim=True)
        task = torch.tensor([TASKS.index(sample.row.task) for sample in samples])
        rated = [number for number, level in enumerate(levels) if level is not None]
        sizes = [(height, width) for sample in samples for width, height in sample.sizes]
        shares = [samples[number].row.level_probs or [float("nan")] * 5 for number in rated]
        pairs = self._pairs([samples[number] for number in rated])
        return {
            "tiles": torch.cat([sample.tiles for sample in samples]),
            "image_sizes": torch.tensor(sizes, dtype=torch.long).reshape(-1, 2),
            "images": torch.tensor([len(sample.sizes) for sample in samples]),
            "input_ids": self._padded(ids),
            "places": torch.tensor(places),
            "targets": targets,
            "weights": weights,
            "task": task,
            "level_row": torch.tensor(rated, dtype=torch.long),
            "level_place": torch.tensor([column[levels[n]] for n in rated], dtype=torch.long),
            "level_probs": torch.tensor(shares, dtype=torch.float32).reshape(-1, 5),
            "level_source": torch.tensor([source_number(samples[n].row) for n in rated], dtype=torch.long),
            "pairs": torch.tensor(pairs, dtype=torch.long).reshape(-1, 2),
            "amounts": torch.tensor([*(float(weights[task == n].sum()) for n in range(len(TASKS))), float(len(pairs))]),
        }

    def _laid_out(self, sample: Sample) -> tuple[list[int], list[int], int | None]:
        """All tokens of a row, the places from which the next is learned, and that from which the level word is."""
        tokens = sample.tokens
        repeats = np.ones(len(tokens.ids), int)
        repeats[tokens.ids == self.image_token_id] = sample.image_tokens
        learned = np.repeat(tokens.learned, repeats).nonzero()[0] - 1
        level = None if tokens.level is None else int(repeats[: tokens.level].sum()) - 1
        return np.repeat(tokens.ids, repeats).tolist(), learned.tolist(), level

    def _padded(self, ids: Sequence[list[int]]) -> torch.Tensor:
        length = max(map(len, ids))
        return torch.tensor([row + [self.pad_token_id] * (length - len(row)) for row in ids])

    def _pairs(self, rated: Sequence[Sample]) -> list[tuple[int, int]]:
        """Ratings of one source that both have soft labels; those of two sources were given on different scales."""
        if self.config.level_loss != "soft+rank":
            return []
        sources = [source_number(sample.row) for sample in rated]
        pairs = combinations(range(len(rated)), 2)
        return [(a, b) for a, b in pairs if sources[a] == sources[b] != NO_SOURCE]
