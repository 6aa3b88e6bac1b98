"""Stages E and P: the language model learns to read a tower's evidence, and the projector to write it.

When the joint stage began from ideal codes, the language model had to learn anew how doubtful real features are.
Reading what the heads say at each token, written in the same vectors, it starts where the heads are.

    python -m qsit_plugin.training.nano.evidence --photos FOLDER --tower tower.safetensors \\
        --language language.safetensors --out start.safetensors
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from qsit_plugin.engines.torch_engine import normalise

from ..synthetic import photos
from ..synthetic.distortions import Defect
from .architecture import PATCH, TEXT_LAYERS, TILE
from .joint import write
from .language import LanguageStage, Learner, Lesson, code_book, learner
from .optimizers import cosine
from .tower import CLEAN, Pairs, TowerWithHeads, load_result, parsed

POOL = 2
"""Side of the squares of tokens whose evidence is averaged: a lesson has 16 tokens a view instead of 64."""


@dataclass(frozen=True)
class EvidenceStage:
    """What the recipe says of stages E and P."""

    views: int = 12_000
    steps: int = 600
    batch: int = 48
    learning_rate: float = 1.2e-3
    projector_steps: int = 200
    seed: int = 0
    threads: int = 1
    layers: int = TEXT_LAYERS
    bfloat16: bool = False


def evidence(heads: torch.Tensor, book: torch.Tensor) -> torch.Tensor:
    """(…, 26) outputs of stage A's heads -> (…, WIDTH) vectors: kinds by their centred logits, strength by the levels'.

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
        for batch in Pairs(images, 64, stage.seed + 29, photos.DOUBTFUL).loader(0, stage.views // 64):
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


def fit_projector(
    made: Learner, tower: TowerWithHeads, images: list[Image.Image], book: torch.Tensor, stage: EvidenceStage
) -> None:
    """Every token's features shall be projected onto the evidence at that token."""
    projector, engine = made.model.model.multi_modal_projector, made.engine
    optimizer = torch.optim.AdamW(projector.parameters(), lr=3e-3, weight_decay=0.0)
    mean, start = None, time.monotonic()
    for step, batch in enumerate(Pairs(images, 64, stage.seed + 17).loader(0, stage.projector_steps)):
        optimizer.param_groups[0]["lr"] = 3e-3 * cosine(step, stage.projector_steps, warmup=1)
        with torch.no_grad():
            features = engine.features(normalise(engine.tiling, batch.pixels.permute(0, 3, 1, 2)))
            target = evidence(tower.tokens(batch.pixels), book)
        loss = F.mse_loss(projector(features), target) / target.var()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        mean = loss.item() if mean is None else 0.95 * mean + 0.05 * loss.item()
        if step % 50 == 0:
            print(f"P step {step} unexplained {mean:.3f} {time.monotonic() - start:.0f} s", flush=True)


def train(
    folder: str | Path, tower_result: str | Path, language: str | Path, out: str | Path, stage: EvidenceStage
) -> Learner:
    """Stages E and P on the results of A and L. Minutes long, so without a state of its own."""
    torch.set_num_threads(stage.threads)
    torch.manual_seed(stage.seed)
    made, tower = learner(stage.layers, language), load_result(tower_result)
    made.take_tower(tower)
    images = photos.load(photos.split(photos.find(folder))[0])
    book = code_book(stage.seed)
    shared = {name: getattr(stage, name) for name in ("steps", "batch", "learning_rate", "bfloat16")}
    made.train(Evidence(tower, images, book, stage), LanguageStage(seed=stage.seed + 1, **shared))
    fit_projector(made, tower, images, book, stage)
    made.save(out)
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", required=True, help="folder of clean photos, the same as in stage A")
    parser.add_argument("--tower", required=True, help="the result of stage A")
    parser.add_argument("--language", required=True, help="the result of stage L")
    parser.add_argument("--out", default="start.safetensors")
    parser.add_argument("--folder", default=None, help="write a checkpoint folder, too: a base for qsit train")
    args, stage = parsed(parser, EvidenceStage)
    made = train(args.photos, args.tower, args.language, args.out, stage)
    if args.folder:
        write(made, args.folder)


if __name__ == "__main__":
    main()
