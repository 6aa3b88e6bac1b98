"""Stage A: the vision tower alone, under plain heads for severity and kind of distortion.

From scratch through an untrained language model nothing is learned in any budget that we tried (rank correlation .13),
so the tower learns first what to look for.

    python -m qsit_plugin.training.nano.tower --photos FOLDER --out tower.safetensors --minutes 30
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn

from . import photos
from .architecture import WIDTH, new_vision_tower
from .distortions import NAMES

CLEAN = len(NAMES)
LEVELS = torch.tensor([5.0, 4.0, 3.0, 2.0, 1.0])


def soft_levels(score: torch.Tensor) -> torch.Tensor:
    """(N,) scores on [1, 5] -> (N, 5) probabilities, excellent to bad: a Gaussian of half a level around the score."""
    mass = torch.exp(-0.5 * ((LEVELS - score[:, None]) / 0.5) ** 2)
    return mass / mass.sum(-1, keepdim=True)


class Pairs(torch.utils.data.IterableDataset):
    """Endless batches of view pairs; every batch's random state follows from (seed, worker, step)."""

    def __init__(self, images, batch: int, seed: int, weights: dict[str, float] = photos.HARD):
        self.images, self.batch, self.seed, self.weights = images, batch, seed, weights

    def __iter__(self):
        info = torch.utils.data.get_worker_info()
        rng = np.random.default_rng([self.seed, info.id if info else 0])
        while True:
            views = [
                view for _ in range(self.batch // 2) for view in photos.sample_pair(self.images, rng, self.weights)
            ]
            yield (
                torch.from_numpy(np.stack([v.pixels for v in views])),
                torch.tensor([CLEAN if v.name is None else NAMES.index(v.name) for v in views]),
                torch.tensor([v.visible for v in views], dtype=torch.float32),
                torch.tensor([v.score for v in views], dtype=torch.float32),
            )


class TowerWithHeads(nn.Module):
    """uint8 views (N, H, W, 3) -> level logits (N, 5) and kind logits (N, 11)."""

    def __init__(self, seed: int):
        super().__init__()
        self.tower = new_vision_tower(seed)
        self.head = nn.Linear(WIDTH, len(LEVELS) + len(NAMES) + 1)

    def tokens(self, views: torch.Tensor) -> torch.Tensor:
        """(N, tokens, 16): what the heads say at every token; their mean is what they say of the view."""
        pixels = views.permute(0, 3, 1, 2).float() / 127.5 - 1.0
        return self.head(self.tower(pixel_values=pixels).last_hidden_state)

    def forward(self, views: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.tokens(views).mean(1).split([len(LEVELS), len(NAMES) + 1], dim=-1)


def loss_of(model: TowerWithHeads, batch) -> torch.Tensor:
    views, kind, visible, score = batch
    levels, kinds = (logits.float() for logits in model(views))
    level_loss = -(soft_levels(score) * levels.log_softmax(-1)).sum(-1).mean()
    named = (kind == CLEAN) | (visible > 0.05)  # what cannot be seen shall not be named
    kind_loss = F.cross_entropy(kinds[named], kind[named])
    value = levels.softmax(-1) @ LEVELS
    better, worse = value[0::2], value[1::2]  # the pairs lie side by side, the milder one first
    gap = score[0::2] - score[1::2]
    rank_loss = (F.softplus(-4.0 * (better - worse)) * (gap > 0.1)).mean()
    return level_loss + 1.5 * kind_loss + rank_loss


@torch.no_grad()
def check(model: TowerWithHeads, images, batches: int = 8) -> dict[str, float]:
    """Pooled rank correlation with the severity score, and share of kinds named right (visible ones)."""
    from scipy.stats import spearmanr

    model.eval()
    values, scores, hits, shown = [], [], [], []
    for _, (views, kind, visible, score) in zip(range(batches), Pairs(images, 128, seed=99), strict=False):
        levels, kinds = model(views)
        values.append(levels.softmax(-1) @ LEVELS)
        scores.append(score)
        seen = (kind != CLEAN) & (visible > 0.15)
        hits.append((kinds[:, :CLEAN].argmax(-1) == kind)[seen])
        shown.append(kind[seen])
    model.train()
    rho = spearmanr(torch.cat(values), torch.cat(scores)).statistic
    right, kind = torch.cat(hits).float(), torch.cat(shown)
    each = {name: round(right[kind == i].mean().item(), 2) for i, name in enumerate(NAMES) if (kind == i).any()}
    return {"srcc": round(float(rho), 4), "named": round(right.mean().item(), 4), **each}


def resume(model: TowerWithHeads, result: str | None, checkpoint: str | None) -> None:
    """Take heads and tower from an earlier result of this stage; the tower from a whole checkpoint if one is given.

    A checkpoint alone leaves the heads as they are: they are learned again in a minute.
    """
    tower: dict[str, torch.Tensor] = {}
    if result:
        state = load_file(result)
        model.head.load_state_dict({k.removeprefix("head."): v for k, v in state.items() if k.startswith("head.")})
        tower = {k: v for k, v in state.items() if not k.startswith("head.")}
    if checkpoint:
        prefix = "vision_tower.vision_model."
        stored = load_file(Path(checkpoint) / "model.safetensors")
        tower = {k.removeprefix(prefix): v.float() for k, v in stored.items() if k.startswith(prefix)}
    getattr(model.tower, "vision_model", model.tower).load_state_dict(tower)


def train(
    folder: str,
    out: str,
    minutes: float,
    batch: int,
    learning_rate: float,
    seed: int,
    threads: int,
    result: str | None = None,
    checkpoint: str | None = None,
    bfloat16: bool = False,
) -> None:
    torch.set_num_threads(threads)
    train_files, held_files = photos.split(photos.find(folder))
    images, held = photos.load(train_files), photos.load(held_files)
    print(f"{len(images)} photos to train on, {len(held)} held out", flush=True)
    model = TowerWithHeads(seed)
    if result or checkpoint:
        resume(model, result, checkpoint)
    decayed = [p for p in model.parameters() if p.ndim > 1]
    plain = [p for p in model.parameters() if p.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.05}, {"params": plain, "weight_decay": 0.0}], betas=(0.9, 0.98)
    )
    loader = iter(torch.utils.data.DataLoader(Pairs(images, batch, seed), batch_size=None, num_workers=1))
    start, step, seen = time.monotonic(), 0, 0.0
    while (done := (time.monotonic() - start) / (60 * minutes)) < 1.0:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * min(1.0, (step + 1) / 100) * 0.5 * (1 + math.cos(math.pi * done))
        batch_of_views = next(loader)
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            loss = loss_of(model, batch_of_views)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        step, seen = step + 1, 0.98 * seen + 0.02 * loss.item()
        if step % 100 == 0:
            rate = step * batch / (time.monotonic() - start)
            print(f"step {step} loss {seen / (1 - 0.98**step):.3f} {rate:.0f} views/s {100 * done:.0f} %", flush=True)
        if step % 400 == 0:
            print(" held out", check(model, held), flush=True)
            save(model, out)
    print("final", step * batch, "views", check(model, held, batches=16), flush=True)
    save(model, out)


def save(model: TowerWithHeads, out: str) -> None:
    """The tower's weights under the names of ``SiglipVisionModel`` without its wrapper; heads under ``head.``."""
    tower = getattr(model.tower, "vision_model", model.tower)
    state = {k: v.contiguous() for k, v in tower.state_dict().items()}
    state |= {f"head.{k}": v for k, v in model.head.state_dict().items()}
    partial = Path(out).with_suffix(".partial")
    save_file(state, partial)
    partial.replace(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", required=True, help="folder of clean photos")
    parser.add_argument("--out", default="tower.safetensors")
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--learning-rate", type=float, default=1.5e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--resume", default=None, help="an earlier result to go on from; the schedule begins anew")
    parser.add_argument("--checkpoint", default=None, help="take the tower of this checkpoint folder")
    parser.add_argument("--bfloat16", action="store_true", help="twice as fast where the processor has AVX512-BF16")
    args = parser.parse_args()
    train(
        args.photos,
        args.out,
        args.minutes,
        args.batch,
        args.learning_rate,
        args.seed,
        args.threads,
        args.resume,
        args.checkpoint,
        args.bfloat16,
    )


if __name__ == "__main__":
    main()
