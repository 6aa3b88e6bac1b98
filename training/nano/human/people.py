"""The human stage: the joint stage on people's ratings and on synthetic distortions, so that words and number agree.

It goes on from a checkpoint, under the tower that imitated the teacher. First the projector learns to say of the new
tower's features what the old one said of the old tower's: so the language model knows its words from the first step.
Then all are trained together, the tower slowly.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from qsit_plugin.engines.torch_engine import normalise

from ...synthetic.drawings import drawings
from ...synthetic.photos import HARD, load
from ..architecture import use_plain_attention
from ..batches import Batch, Batches
from ..joint import forward, losses_of, optimizers_for, write
from ..language import Learner, learner, take_weights
from ..loop import Loop, Numbered, Stage, log_means
from ..optimizers import cosine, trapezoid
from ..tower import LEVELS, Pairs, load_result
from .batches import SIDE, RatedBatches, kinds_of
from .crops import UNRATED, photos_of
from .imitation import DRAWINGS, GOOD
from .rated import Rated, has_size
from .teacher import Teacher, read_teacher

SCOPE = "human ratings of photos, and synthetic distortions"
"""What its scores follow."""

DRAWN = 4.6
"""Level of a drawing, on 1 to 5."""


@dataclass(frozen=True)
class HumanStage(Stage):
    """Settings of the human stage."""

    steps: int = 3000
    learning_rate: float = 4e-4
    checkpoint: str = "qsit-nano"
    """Whose language model and projector it begins with."""
    frozen: float = 0.3
    """Share of the steps with the tower frozen."""
    human: float = 0.6
    """Share of the batches of rated photos; the others are of synthetic distortions."""
    scoring: float = 0.6
    """Share of the batches in which only the score is asked for."""
    augmentation: float = 0.5
    """Share of the distorted photos that are composed of several, flipped, and given another look."""
    clean: int = 1500
    """The most rated photos that are distorted, see imitation.GOOD."""
    aligning: int = 300
    """Steps of the projector alone."""
    save_every: int = 100


@dataclass(eq=False)
class MixedBatches(Numbered):
    """Batches of either kind, by number."""

    rated: RatedBatches
    synthetic: Batches
    share: float
    seed: int

    def __getitem__(self, number: int) -> Batch:
        people = np.random.default_rng([self.seed, 6, number]).random() < self.share
        return self.rated[number] if people else self.synthetic[number]


def align(made: Learner, old: Learner, images: list[Image.Image], stage: HumanStage) -> None:
    """Let the projector say of the new tower's features what ``old`` says of its own."""
    projector, before = made.model.model.multi_modal_projector, old.model.model.multi_modal_projector
    optimizer = torch.optim.AdamW(projector.parameters(), weight_decay=0.0)
    log = log_means(stage.aligning, 50, "", keep=0.95)
    for step, batch in enumerate(Pairs(images, 64, stage.seed + 17, HARD).loader(0, stage.aligning)):
        optimizer.param_groups[0]["lr"] = 2e-3 * cosine(step, stage.aligning, warmup=20)
        with torch.no_grad():
            pixels = normalise(made.engine.tiling, batch.pixels.permute(0, 3, 1, 2))
            features, target = made.engine.features(pixels), before(old.engine.features(pixels))
        loss = F.mse_loss(projector(features), target) / target.var()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        log(step + 1, {"unexplained": loss.item()}, 0.0)


@torch.inference_mode()
def levels_of(photos: list[Rated], images: list[Image.Image], teacher: Teacher) -> list[float]:
    """What people said of each photo on 1 to 5, what the teacher says where nobody did; DRAWN of what is no photo."""
    found = [1 + 4 * photo.mos for photo in photos] + [DRAWN] * (len(images) - len(photos))
    for number, image in enumerate(images[: len(photos)]):
        if found[number] != found[number]:
            side = min(1024, *image.size) // 32 * 32
            left, top = (image.width - side) // 2, (image.height - side) // 2
            pixels = np.asarray(image.crop((left, top, left + side, top + side)))
            found[number] = float(teacher(torch.from_numpy(pixels.copy())[None]).softmax(-1)[0] @ LEVELS)
    return found


def begin(tower: Path, images: list[Image.Image], stage: HumanStage, aligned: bool) -> Learner:
    """The checkpoint with the new tower; its projector is ``aligned`` already where a state is resumed."""
    made, seer = learner(4), load_result(tower)
    take_weights(made, stage.checkpoint)
    made.take_tower(seer)
    if not aligned:
        old = learner(4)
        take_weights(old, stage.checkpoint)
        align(made, old, images, stage)
    return made


def train(rated: Path, photos: Path, tower: Path, teacher: Path, out: Path, stage: HumanStage) -> None:
    """Train, or resume, the whole model. Writes the checkpoint folder ``out`` at every state, the state beside it."""
    stage.begin()
    out.parent.mkdir(parents=True, exist_ok=True)
    state = Path(f"{out}.state")
    shown = photos_of(rated, photos, Path(f"{out}.thumbnails.npz"), SIDE)
    people = [photo for photo in shown if photo.subset != UNRATED and has_size(photo.path, SIDE)]
    clean = [photo for photo in shown if photo.subset == UNRATED] + [p for p in people if p.mos >= GOOD][: stage.clean]
    images = load([photo.path for photo in clean]) + drawings(DRAWINGS, stage.seed)
    levels = levels_of(clean, images, read_teacher(teacher))
    made = begin(tower, images, stage, state.exists())
    defects = kinds_of(people, load_result(tower), Path(f"{out}.kinds.npz"))
    use_plain_attention(made.model)
    before, tiling = made.conversation.prompt("").before, made.engine.tiling
    synthetic = Batches(images, made.conversation, tiling, stage.seed, 0, stage.augmentation, stage.scoring, levels)
    asked = RatedBatches(people, defects, made.conversation, tiling, stage.seed, stage.scoring)
    print(f"{len(people)} rated photos, {len(images)} for synthetic distortions", flush=True)
    log = log_means(stage.steps, 50, "{:.1f} images/s")
    loop = Loop(stage, [made.model, made.heads], optimizers_for(made.model, made.heads), log, state)
    for step, batch in loop.over(MixedBatches(asked, synthetic, stage.human, stage.seed).loader):
        with stage.autocast():
            logits, states = forward(made.engine, before, batch, made.choice_layer, step < stage.frozen * stage.steps)
        parts = losses_of(logits.float(), states.float(), batch, made.level_ids, None)
        loop.descend(stage.learning_rate * trapezoid(step, stage.steps), parts, len(batch.scores), clipped=made.model)
        if loop.saves:
            write(made, out, scope=SCOPE, scope_kind="mixed")
