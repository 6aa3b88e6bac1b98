"""Nano's vision tower imitates the teacher's maps on its own grid of 16-pixel patches. No ratings are needed.

Crops of many photos, half of them distorted first, are shown to both. Targets are the teacher's maps at strides 8, 16
and 32, each channel standardised; linear heads on the tower's layers 4 and 6 predict them. A stopped run is resumed
from its last state; with more --steps a finished one goes on too.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from ...synthetic.photos import HARD, apply, find, pick_name, random_crop, split
from ..architecture import PATCH, TILE, WIDTH, new_vision_tower, use_plain_attention
from ..loop import Loop, Numbered, Stage, log_means
from ..optimizers import muon_and_adamw, trapezoid
from ..tower import inner_tower, read_tower
from .efficientnet import CHANNELS, STRIDES, load
from .rated import read_and_cut

TARGETS = ((2, 4), (4, 6), (6, 6))
"""Which of the teacher's maps is predicted from the tower's which layer (counted from 1): strides 8, 16 and 32."""

DISTORTED, GREY = 0.5, 0.05
"""Share of the crops that are distorted, and that lose their colours: the tower shall see both as the teacher does."""


@dataclass(frozen=True)
class ImitationStage(Stage):
    """Settings of the imitation."""

    steps: int = 12000
    crops: int = 4
    side: int = 384
    """Pixels of a crop; a multiple of the tile."""
    learning_rate: float = 6e-4
    checkpoint: str = "qsit-nano"
    """Where the tower begins: a checkpoint of this package, or an older result of this stage (.safetensors)."""
    teacher: str | None = None
    """A fine-tuned teacher; ImageNet's weights where none is given."""
    save_every: int = 250


@dataclass(eq=False)
class Crops(Numbered):
    """Batches by number, uint8 (crops, side, side, 3): every batch follows from (seed, number)."""

    files: list[Path]
    stage: ImitationStage

    def __getitem__(self, number: int) -> torch.Tensor:
        rng = np.random.default_rng([self.stage.seed, number])
        return torch.from_numpy(np.stack([self.crop(rng) for _ in range(self.stage.crops)]))

    def crop(self, rng: np.random.Generator) -> np.ndarray:
        with Image.open(self.files[rng.integers(len(self.files))]) as stored:
            image = stored.convert("RGB")
        image = random_crop(image, self.stage.side, self.stage.side, rng)
        if rng.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        if rng.random() < GREY:
            image = image.convert("L").convert("RGB")
        if rng.random() < DISTORTED:
            plan = ((pick_name(image, rng, HARD), float(rng.random())),)
            image = apply(image, plan, int(rng.integers(2**31)))
        return np.asarray(image)


class Imitator(nn.Module):
    """uint8 crops (N, S, S, 3) -> predictions of the teacher's standardised maps, one a target."""

    def __init__(self, seed: int):
        super().__init__()
        self.tower = new_vision_tower(seed)
        use_plain_attention(self.tower)
        self.heads = nn.ModuleList(nn.Linear(WIDTH, CHANNELS[m] * per_patch(m)) for m, _ in TARGETS)
        for number, (m, _) in enumerate(TARGETS):
            self.register_buffer(f"mean{number}", torch.zeros(1, CHANNELS[m], 1, 1))
            self.register_buffer(f"deviation{number}", torch.ones(1, CHANNELS[m], 1, 1))

    def forward(self, crops: torch.Tensor) -> list[torch.Tensor]:
        layers = tower_layers(self.tower, tiles(crops))
        return [
            on_grid(head(layers[layer - 1]), len(crops), STRIDES[m])
            for head, (m, layer) in zip(self.heads, TARGETS, strict=True)
        ]

    def targets(self, maps: list[torch.Tensor]) -> list[torch.Tensor]:
        """What the teacher's eight maps ask of the heads."""
        return [
            (maps[m].float() - getattr(self, f"mean{number}")) / getattr(self, f"deviation{number}")
            for number, (m, _) in enumerate(TARGETS)
        ]

    def standardise(self, batches: list[list[torch.Tensor]]) -> None:
        """Take mean and deviation of every channel from the teacher's maps of some batches."""
        for number, (m, _) in enumerate(TARGETS):
            seen = torch.cat([maps[m].float() for maps in batches])
            setattr(self, f"mean{number}", seen.mean((0, 2, 3), keepdim=True))
            setattr(self, f"deviation{number}", seen.std((0, 2, 3), keepdim=True) + 1e-3)


def per_patch(number: int) -> int:
    """Cells of the teacher's map that lie in one patch of the tower, 1 where a cell is larger."""
    return max(1, PATCH // STRIDES[number]) ** 2


def tiles(crops: torch.Tensor) -> torch.Tensor:
    """(N, S, S, 3) of 0..255 -> (N * tiles, 3, TILE, TILE) of -1..1, row by row."""
    cut = crops.unfold(1, TILE, TILE).unfold(2, TILE, TILE)
    return cut.reshape(-1, 3, TILE, TILE).float() / 127.5 - 1.0


def tower_layers(tower: nn.Module, pixels: torch.Tensor) -> list[torch.Tensor]:
    """The output of every layer, (N, patches, WIDTH) each, without the last normalisation: what the projector reads."""
    inner: Any = inner_tower(tower)
    state, every = inner.embeddings(pixels), []
    for layer in inner.encoder.layers:
        state = layer(state, attention_mask=None)
        every.append(state)
    return every


def on_grid(tokens: torch.Tensor, crops: int, stride: int) -> torch.Tensor:
    """(N * tiles, patches, C * cells) -> (N, C, S / stride, S / stride): tiles side by side, cells in their patch."""
    rows, patches = round((tokens.shape[0] / crops) ** 0.5), TILE // PATCH
    grid = tokens.reshape(crops, rows, rows, patches, patches, -1).permute(0, 5, 1, 3, 2, 4)
    grid = grid.reshape(crops, -1, rows * patches, rows * patches)
    return F.avg_pool2d(grid, stride // PATCH) if stride > PATCH else F.pixel_shuffle(grid, PATCH // stride)


def files_of(rated_folder: Path, photo_folder: Path, cache: Path, side: int) -> list[Path]:
    """Rated photos of the training part, and four times the clean ones of the split's training half: there are few."""
    people = [photo.path for photo in read_and_cut(rated_folder, cache) if photo.part == "training"]
    return [path for path in people + 4 * split(find(photo_folder))[0] if _shorter_side(path) >= side]


def _shorter_side(path: Path) -> int:
    with Image.open(path) as image:
        return min(image.size)


def train(rated: Path, photos: Path, out: Path, stage: ImitationStage) -> None:
    """Train, or resume, the tower. Writes it to ``out`` at every state, and the state beside it."""
    stage.begin()
    out.parent.mkdir(parents=True, exist_ok=True)
    files = files_of(rated, photos, out.with_suffix(".thumbnails.npz"), stage.side)
    print(f"{len(set(files))} photos", flush=True)
    teacher, model = load(stage.teacher), Imitator(stage.seed)
    teacher.requires_grad_(False).to(torch.bfloat16 if stage.bfloat16 else torch.float32)
    inner_tower(model.tower).load_state_dict(read_tower(stage.checkpoint))
    state, data = out.with_suffix(".state"), Crops(files, stage)
    if not state.exists():
        model.standardise([teacher(data[2**30 + n]) for n in range(12)])
    loop = Loop(stage, [model], muon_and_adamw(model), log_means(stage.steps, 50, "{:.2f} steps/s", keep=None), state)
    for step, crops in loop.over(data.loader):
        with stage.autocast():
            found = model(crops)
        pairs = zip(found, model.targets(teacher(crops)), TARGETS, strict=True)
        losses = {f"stride{STRIDES[m]}": F.mse_loss(a.float(), b) for a, b, (m, _) in pairs}
        loop.descend(stage.learning_rate * trapezoid(step, stage.steps), losses)
        if loop.saves:
            save(model, out)


def save(model: Imitator, out: str | Path) -> None:
    """The tower's weights in bfloat16 under the names of ``SiglipVisionModel`` without its wrapper, without heads."""
    save_file({k: v.to(torch.bfloat16).contiguous() for k, v in inner_tower(model.tower).state_dict().items()}, out)
