"""Nano's vision tower learns from a teacher, from people and from synthetic distortions at once, on its own grid.

Crops of many photos are shown to teacher and tower. The teacher's maps at strides 8, 16 and 32, each channel
standardised, are predicted by linear heads on the tower's layers 4 and 6; later the teacher's levels and people's by a
head on what layer 6 holds of the whole crop, and what the tower stage asks of distorted views: with maps alone it would
forget how to name them. A stopped run is resumed from its last state; with more --steps a finished one goes on too.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn

from ...synthetic.drawings import drawings
from ...synthetic.photos import HARD, load
from ..architecture import WIDTH
from ..loop import Loop, Numbered, Stage, log_means
from ..optimizers import adamw, trapezoid
from ..tower import LEVELS, Pairs, TowerWithHeads, Views, inner_tower, mean_apart, order_losses, read_tower, soft_levels
from ..tower import loss_of as loss_of_views
from .crops import DRAWINGS, CropBatches, Crops, clean_of, photos_of
from .efficientnet import CHANNELS, STRIDES
from .grid import on_grid, over_photo, per_patch, tiles, tower_layers
from .teacher import DIFFER, read_teacher

TARGETS = ((2, 4), (4, 6), (6, 6))
"""Which of the teacher's maps is predicted from the tower's which layer (counted from 1): strides 8, 16 and 32."""

WEIGHTS = {"levels": 0.1, "order": 0.03}
"""Of the losses beside those of maps and views: on the tower their gradients are three to ten times as long, and of
four crops mostly noise."""


@dataclass(frozen=True)
class ImitationStage(Stage):
    """Settings of the imitation."""

    steps: int = 12000
    crops: int = 4
    side: int = 384
    """Pixels of a crop; a multiple of the tile."""
    views: int = 24
    """Views of the tower stage in a step, in pairs."""
    clean: int = 1500
    """The most rated photos that are distorted, see crops.GOOD."""
    augmentation: float = 0.5
    """Share of the views whose photos are composed of several, flipped, and given another look; see ``augmented``."""
    learning_rate: float = 6e-4
    checkpoint: str = "qsit-nano"
    """Where the tower begins: a checkpoint of this package, or an older result of this stage (.safetensors)."""
    teacher: str | None = None
    """A fine-tuned teacher; ImageNet's weights where none is given, and then no levels but people's."""
    teacher_bfloat16: bool = False
    """The teacher alone in bfloat16: with AVX512-BF16 and no AMX its convolutions are faster so, the tower slower."""
    alone: float = 0.6
    """Share of the steps with the maps alone. With all losses from the start (of weights 0.03 to 0.1) the maps' were
    .83, .99 and 1.05 after 250 steps, alone .74, .87 and 1.02 after 200."""
    views_weight: float = 0.05
    """Weight of the loss on distorted views."""
    save_every: int = 250


@dataclass(eq=False)
class Lessons(Numbered):
    """Crops, and from a number on views beside them."""

    crops: CropBatches
    views: Pairs
    alone: float

    def __getitem__(self, number: int) -> tuple[Crops, Views | None]:
        return self.crops[number], None if number < self.alone else self.views[number]


class Imitator(nn.Module):
    """uint8 crops (N, S, S, 3) -> the teacher's standardised maps, one a target, and level logits (N, 5)."""

    def __init__(self, seed: int):
        super().__init__()
        self.seer = TowerWithHeads(seed)
        self.heads = nn.ModuleList(nn.Linear(WIDTH, CHANNELS[m] * per_patch(STRIDES[m])) for m, _ in TARGETS)
        self.levels = nn.Linear(2 * WIDTH, len(LEVELS))
        for number, (m, _) in enumerate(TARGETS):
            self.register_buffer(f"mean{number}", torch.zeros(1, CHANNELS[m], 1, 1))
            self.register_buffer(f"deviation{number}", torch.ones(1, CHANNELS[m], 1, 1))

    @property
    def kept_heads(self) -> dict[str, nn.Linear]:
        """The heads that are stored beside the tower; those of the maps are thrown away."""
        return {"head": self.seer.head, "levels": self.levels}

    def forward(self, crops: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor]:
        layers = tower_layers(self.seer.tower, tiles(crops))
        maps = [
            on_grid(head(layers[layer - 1]), len(crops), STRIDES[m])
            for head, (m, layer) in zip(self.heads, TARGETS, strict=True)
        ]
        return maps, self.levels(over_photo(layers[-1], len(crops)))

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


def losses_of(
    model: Imitator, crops: Crops, maps: list[torch.Tensor], graded: torch.Tensor | None
) -> dict[str, torch.Tensor]:
    """Maps, levels and their order within the batch, which is of one subset. ``graded``: the teacher's levels (N, 5);
    of a photo that nothing was done to they count as much as people's, of another they are not asked: it never saw a
    distortion."""
    found, logits = model(crops.pixels)
    pairs = zip(found, model.targets(maps), TARGETS, strict=True)
    losses = {f"stride{STRIDES[m]}": F.mse_loss(a.float(), b) for a, b, (m, _) in pairs}
    said = ~crops.levels.isnan()
    wanted = soft_levels(crops.levels.nan_to_num(3.0))
    if graded is not None:
        share = torch.where(crops.whole, torch.where(said, 0.5, 1.0), 0.0)[:, None]
        wanted, said = share * graded + (1 - share) * wanted, said | crops.whole
    logs = logits.float().log_softmax(-1)
    losses["levels"] = (-(wanted * logs).sum(-1) * said).sum() / said.sum().clamp(min=1)
    value, truth = logs.exp() @ LEVELS, wanted @ LEVELS
    apart = (truth[:, None] - truth > DIFFER) & said[:, None] & said
    losses["order"] = mean_apart(order_losses(value), apart)
    return losses


def train(rated: Path, photos: Path, out: Path, stage: ImitationStage) -> None:
    """Train, or resume, the tower. Writes it to ``out`` at every state, and the state beside it."""
    stage.begin()
    out.parent.mkdir(parents=True, exist_ok=True)
    shown = photos_of(rated, photos, out.with_suffix(".thumbnails.npz"), stage.side)
    clean = load([photo.path for photo in clean_of(shown, stage.clean)]) + drawings(DRAWINGS, stage.seed)
    print(f"{len(shown)} photos, {len(clean)} of them or drawn for synthetic distortions", flush=True)
    teacher, model = read_teacher(stage.teacher), Imitator(stage.seed)
    teacher.requires_grad_(False)
    if stage.bfloat16 or stage.teacher_bfloat16:
        teacher.network.to(torch.bfloat16)
    begin(model, stage.checkpoint)
    crops = CropBatches(shown, stage.crops, stage.side, stage.seed)
    data = Lessons(crops, Pairs(clean, stage.views, stage.seed, HARD, stage.augmentation), stage.alone * stage.steps)
    state = out.with_suffix(".state")
    if not state.exists():
        model.standardise([teacher.network(crops[2**30 + n].pixels) for n in range(12)])
    log = log_means(stage.steps, 50, "{:.2f} steps/s", keep=None)
    loop = Loop(stage, [model], [adamw(model.parameters())], log, state)
    for step, (some, views) in loop.over(data.loader):
        with torch.no_grad():
            maps = teacher.network(some.pixels)
            graded = teacher.of_maps(maps).softmax(-1) if stage.teacher else None
        with stage.autocast():
            losses = losses_of(model, some, maps, graded)
            if views is None:
                losses = {name: loss for name, loss in losses.items() if name not in WEIGHTS}
            else:
                losses["views"] = stage.views_weight * loss_of_views(model.seer, views)
        weighted = {name: WEIGHTS.get(name, 1.0) * loss for name, loss in losses.items()}
        loop.descend(stage.learning_rate * trapezoid(step, stage.steps), weighted)
        if loop.saves:
            save(model, out)


def begin(model: Imitator, checkpoint: str) -> None:
    """Take the tower of a checkpoint, or what an older run of this stage wrote: heads for views and levels, too."""
    inner_tower(model.seer.tower).load_state_dict(read_tower(checkpoint))
    if Path(checkpoint).suffix != ".safetensors":
        return
    stored = load_file(checkpoint)
    for name, head in model.kept_heads.items():
        head.load_state_dict({k.removeprefix(f"{name}."): v for k, v in stored.items() if k.startswith(f"{name}.")})


def save(model: Imitator, out: str | Path) -> None:
    """In bfloat16: the tower's weights under the names of ``SiglipVisionModel`` without its wrapper, the head for views
    under ``head.``, as the tower stage writes them, and that for levels under ``levels.``."""
    state = dict(inner_tower(model.seer.tower).state_dict())
    for name, head in model.kept_heads.items():
        state |= {f"{name}.{k}": v for k, v in head.state_dict().items()}
    save_file({k: v.to(torch.bfloat16).contiguous() for k, v in state.items()}, out)
