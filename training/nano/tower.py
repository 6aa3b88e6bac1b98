"""The tower stage: the vision tower alone, under plain heads for severity and kind of distortion.

From scratch through an untrained language model nothing is learned in any budget that we tried (rank correlation .13),
so the tower learns first what to look for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn

from qsit_plugin.weights import resolve

from ..synthetic.distortions import KINDS, Defect
from ..synthetic.photos import HARD, View, load_split, sample_pairs
from .architecture import PATCH, TILE, WIDTH, new_vision_tower, use_plain_attention
from .loop import Loop, Numbered, Stage, log_means
from .optimizers import cosine, muon_and_adamw

CLEAN = len(KINDS)
"""Number of the kind "no distortion"."""

LEVELS = torch.tensor([5.0, 4.0, 3.0, 2.0, 1.0])
SEEN = 0.05
"""A weaker distortion shall not be named: it cannot be seen."""

PAIRS_OF_A_REGION = 2
"""How many pairs are made of a region: to cut and augment it costs more than to distort it."""


@dataclass(frozen=True)
class TowerStage(Stage):
    """Settings of the tower stage."""

    steps: int = 3000
    batch: int = 128
    learning_rate: float = 1.5e-3
    save_every: int = 200
    checkpoint: str | None = None
    """Take the tower of this checkpoint (qsit-nano, or a folder) instead of a new one; its heads are learned again in a
    minute."""
    augmentation: float = 0.0
    """Share of the photos that are composed of several, flipped, and given another look; see ``augmented``."""
    kept: float = 1.0
    """Share of the tokens of a view that are computed, others at every step: cheaper, and no view is seen twice."""


def soft_levels(score: torch.Tensor) -> torch.Tensor:
    """(N,) scores on [1, 5] -> (N, 5) probabilities, excellent to bad: a Gaussian of half a level around the score."""
    mass = torch.exp(-0.5 * ((LEVELS - score[:, None]) / 0.5) ** 2)
    return mass / mass.sum(-1, keepdim=True)


def kind_shares(defects: Sequence[Defect]) -> list[float]:
    """21 shares of the blame: by harm among the defects that can be seen; all to CLEAN where there is none."""
    shares = [float(sum(d.harm for d in defects if d.name == kind and d.visible > SEEN)) for kind in KINDS]
    total = sum(shares)
    return [*(share / total for share in shares), 0.0] if total else [0.0] * CLEAN + [1.0]


@dataclass
class Views:
    """A batch of N views, in pairs (milder, stronger)."""

    pixels: torch.Tensor  # uint8 (N, S, S, 3)
    kinds: torch.Tensor  # (N, 21) shares of the blame
    sure: torch.Tensor  # bool (N,): the view is clean or its distortion can be seen, so it can be named
    scores: torch.Tensor  # (N,) on [1, 5]
    defects: list[tuple[Defect, ...]]


@dataclass(eq=False)
class Pairs(Numbered):
    """Batches of views in pairs."""

    images: list[Image.Image]
    batch: int
    seed: int
    weights: dict[str, float]
    augmentation: float = 0.0

    def __getitem__(self, number: int) -> Views:
        rng = np.random.default_rng([self.seed, number])
        views: list[View] = []
        while len(views) < self.batch:
            count = min(PAIRS_OF_A_REGION, (self.batch - len(views)) // 2)
            for pair in sample_pairs(self.images, rng, self.weights, self.augmentation, count):
                views += pair
        return Views(
            torch.from_numpy(np.stack([v.pixels for v in views])),
            torch.tensor([kind_shares(v.defects) for v in views]),
            torch.tensor([not v.defects or v.defects[0].visible > SEEN for v in views]),
            torch.tensor([v.score for v in views], dtype=torch.float32),
            [v.defects for v in views],
        )


class TowerWithHeads(nn.Module):
    """uint8 views (N, H, W, 3) -> level logits (N, 5) and kind logits (N, 21)."""

    def __init__(self, seed: int):
        super().__init__()
        self.tower = new_vision_tower(seed)
        use_plain_attention(self.tower)
        self.head = nn.Linear(WIDTH, len(LEVELS) + CLEAN + 1)

    def tokens(self, views: torch.Tensor, kept: torch.Tensor | None = None) -> torch.Tensor:
        """(N, tokens, 26): what the heads say at every token; their mean is what they say of the view. ``kept``:
        numbers of the tokens to look at, all by default."""
        tower: Any = inner_tower(self.tower)
        embedded = tower.embeddings(views.permute(0, 3, 1, 2).float() / 127.5 - 1.0)
        embedded = embedded if kept is None else embedded[:, kept]
        return self.head(tower.post_layernorm(tower.encoder(inputs_embeds=embedded).last_hidden_state))

    def forward(self, views: torch.Tensor, kept: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        return self.tokens(views, kept).mean(1).split([len(LEVELS), CLEAN + 1], dim=-1)


def loss_of(model: TowerWithHeads, batch: Views, kept: torch.Tensor | None = None) -> torch.Tensor:
    levels, kinds = (logits.float() for logits in model(batch.pixels, kept))
    level_loss = -(soft_levels(batch.scores) * levels.log_softmax(-1)).sum(-1).mean()
    kind_loss = -(batch.kinds * kinds.log_softmax(-1)).sum(-1)[batch.sure].mean()
    value = levels.softmax(-1) @ LEVELS
    pairs, all_views = rank_losses(value, batch.scores)
    return level_loss + 1.5 * kind_loss + pairs + all_views


def rank_losses(value: torch.Tensor, scores: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Of N predicted levels and N severity scores, in pairs of one region: how far the pairs are out of order, and how
    far any two views of the batch are. The level loss alone is content when each photo's versions are all a little too
    high or too low; among other photos that is a mistake."""
    apart = scores[:, None] - scores > 0.1
    wrong = order_losses(value)
    pairs = torch.diagonal(wrong * apart, offset=1)[0::2].mean()
    return pairs, mean_apart(wrong, apart)


def order_losses(value: torch.Tensor) -> torch.Tensor:
    """(N, N): how far each of N predicted levels fails to lie above each of the others."""
    return F.softplus(-4.0 * (value[:, None] - value))


def mean_apart(wrong: torch.Tensor, apart: torch.Tensor) -> torch.Tensor:
    """Mean of ``order_losses`` where ``apart`` (N, N) says that the first is the better one; 0 where none is."""
    return wrong[apart].sum() / apart.sum().clamp(min=1)


def some_tokens(stage: TowerStage, step: int) -> torch.Tensor | None:
    """The tokens that a step looks at; they follow from the seed and the step."""
    count = (TILE // PATCH) ** 2
    wanted = round(stage.kept * count)
    order = np.random.default_rng([stage.seed, 2, step]).permutation(count)
    return None if wanted == count else torch.from_numpy(np.sort(order[:wanted]))


@torch.no_grad()
def check(model: TowerWithHeads, images: list[Image.Image], batches: int = 8) -> dict[str, float]:
    """Pooled rank correlation with the severity score, and share of kinds named right (visible ones)."""
    from scipy.stats import spearmanr

    model.eval()
    data = Pairs(images, 128, seed=99, weights=HARD)
    found = [data[number] for number in range(batches)]
    levels, kinds = (torch.cat(parts) for parts in zip(*(model(batch.pixels) for batch in found), strict=True))
    scores, truth = torch.cat([batch.scores for batch in found]), torch.cat([batch.kinds for batch in found]).argmax(-1)
    seen = torch.tensor([bool(d) and d[0].visible > 0.15 for batch in found for d in batch.defects])
    right, kind = (kinds[:, :CLEAN].argmax(-1) == truth)[seen].float(), truth[seen]
    rho = spearmanr(levels.softmax(-1) @ LEVELS, scores).statistic
    model.train()
    each = {name: round(right[kind == i].mean().item(), 2) for i, name in enumerate(KINDS) if (kind == i).any()}
    return {"srcc": round(float(rho), 4), "named": round(right.mean().item(), 4), **each}


def inner_tower(tower: nn.Module) -> nn.Module:
    """The module that holds the weights: transformers 4 wraps it once more."""
    return getattr(tower, "vision_model", tower)


def read_tower(checkpoint: str | Path) -> dict[str, torch.Tensor]:
    """Weights of a vision tower, float32, under the names of ``inner_tower``: from a checkpoint that this package
    wrote, or from a .safetensors file of a tower (the stages tower and imitation)."""
    if Path(checkpoint).suffix == ".safetensors":
        return {k: v.float() for k, v in load_file(checkpoint).items() if not k.startswith(("head.", "levels."))}
    stored = load_file(resolve(checkpoint) / "model.safetensors")
    prefix = "vision_tower.vision_model."
    tower = {k.removeprefix(prefix): v.float() for k, v in stored.items() if k.startswith(prefix)}
    if not tower:
        raise ValueError(f"{checkpoint} has no weights under {prefix}: give a folder that this package wrote")
    return tower


def load_result(path: str | Path) -> TowerWithHeads:
    """Tower and heads of this stage's result."""
    model = TowerWithHeads(0)
    model.head.load_state_dict({k.removeprefix("head."): v for k, v in load_file(path).items() if k[:5] == "head."})
    inner_tower(model.tower).load_state_dict(read_tower(path))
    return model


def save(model: TowerWithHeads, out: str | Path) -> None:
    """The tower's weights under the names of ``inner_tower``, the heads' under ``head.``."""
    state = {k: v.contiguous() for k, v in inner_tower(model.tower).state_dict().items()}
    save_file(state | {f"head.{k}": v for k, v in model.head.state_dict().items()}, out)


def train(photos: Path, out: Path, stage: TowerStage) -> None:
    """Train, or resume, the vision tower. Writes ``out``, and beside it a state (.state) until the end."""
    stage.begin()
    images, held = load_split(photos)
    print(f"{len(images)} photos to train on, {len(held)} held out", flush=True)
    model = TowerWithHeads(stage.seed)
    if stage.checkpoint:
        inner_tower(model.tower).load_state_dict(read_tower(stage.checkpoint))
    state, data = out.with_suffix(".state"), Pairs(images, stage.batch, stage.seed, HARD, stage.augmentation)
    loop = Loop(stage, [model], muon_and_adamw(model), log_means(stage.steps, 100, "{:.0f} views/s"), state)
    for step, batch in loop.over(data.loader):
        with stage.autocast():
            loss = loss_of(model, batch, some_tokens(stage, step + 1))
        rate = stage.learning_rate * cosine(step, stage.steps, warmup=min(100, stage.steps))
        loop.descend(rate, {"loss": loss}, stage.batch)
        if (step + 1) % (2 * stage.save_every) == 0:
            print(" held out", check(model, held), flush=True)
    print("final", stage.steps * stage.batch, "views", check(model, held, batches=16), flush=True)
    save(model, out)
    state.unlink(missing_ok=True)
