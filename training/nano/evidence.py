"""The evidence stage: the language model learns to read a tower's evidence, then the projector to write it.

Evidence is what the heads of the tower stage say at every token of a view, so doubtful and sometimes wrong. When the
joint stage began from ideal codes, the language model had to learn anew how doubtful real features are. Reading
evidence in the vectors of the codes, it starts where the heads are.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from ..synthetic.distortions import Defect
from ..synthetic.photos import DOUBTFUL, load_split
from .architecture import PATCH, TILE
from .joint import write
from .language import Lesson, ReadingStage, code_book, learner
from .projector import fit_projector
from .tower import CLEAN, Pairs, TowerWithHeads, load_result

POOL = 2
"""Side of the squares of tokens whose evidence is averaged: a lesson has 16 tokens a view instead of 64."""


@dataclass(frozen=True)
class EvidenceStage(ReadingStage):
    """Settings of the evidence stage."""

    views: int = 12_000
    steps: int = 600
    learning_rate: float = 1.2e-3
    projector_steps: int = 200


def evidence(heads: torch.Tensor, book: torch.Tensor) -> torch.Tensor:
    """(…, 26) outputs of the tower's heads -> (…, width) vectors: kinds by their centred logits, strength by levels.

    Linear, so that the mean over tokens is the evidence of the whole view: all that attention has to do is average.
    """
    levels, kinds = heads.split([5, CLEAN + 1], dim=-1)
    strength = levels @ torch.tensor([-1.0, -0.5, 0.0, 0.5, 1.0])
    return torch.cat([kinds - kinds.mean(-1, keepdim=True), strength[..., None]], dim=-1) / 3.0 @ book


class Evidence:
    """Lessons of real views, whose evidence is computed once."""

    def __init__(self, tower: TowerWithHeads, images: list[Image.Image], book: torch.Tensor, stage: EvidenceStage):
        outs: list[torch.Tensor] = []
        self.defects: list[tuple[Defect, ...]] = []
        scores: list[torch.Tensor] = []
        side = TILE // PATCH
        for batch in Pairs(images, 64, stage.seed + 29, DOUBTFUL).loader(0, stage.views // 64):
            with torch.no_grad():
                tokens = tower.tokens(batch.pixels)
            grid = tokens.unflatten(1, (side, side)).permute(0, 3, 1, 2)
            outs.append(F.avg_pool2d(grid, POOL).flatten(2).transpose(1, 2))
            self.defects += batch.defects
            scores.append(batch.scores)
        self.outs, self.scores, self.book, self.seed = torch.cat(outs), torch.cat(scores), book, stage.seed

    def lesson(self, number: int, count: int) -> Lesson:
        rows = np.random.default_rng([self.seed, 4, number]).integers(len(self.defects), size=count)
        return evidence(self.outs[rows], self.book), [self.defects[row] for row in rows], self.scores[rows].tolist()


def train(
    photos: Path, tower: Path, language: Path, out: Path, stage: EvidenceStage, folder: Path | None = None
) -> None:
    """Train language model and projector on a tower's evidence; minutes long, so without a state of its own. Writes
    ``out``, and a checkpoint ``folder``, if one is named: a base for qsit train."""
    stage.begin()
    made, seer = learner(stage.width, language), load_result(tower)
    made.take_tower(seer)
    images, book = load_split(photos)[0], code_book(stage.seed, stage.width)
    made.train(Evidence(seer, images, book, stage).lesson, replace(stage, seed=stage.seed + 1))

    def target(views: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
        return evidence(seer.tokens(views), book)

    fit_projector(made, images, target, steps=stage.projector_steps, seed=stage.seed + 17, rate=3e-3, warmup=1)
    made.save(out)
    if folder:
        write(made, folder)
