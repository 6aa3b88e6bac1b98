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
from PIL import Image

from ...synthetic.drawings import drawings
from ...synthetic.photos import load
from .. import joint
from ..batches import Batch, Batches
from ..language import Learner, learner, take_weights
from ..loop import Numbered, Stage
from ..optimizers import trapezoid
from ..projector import fit_projector
from ..tower import LEVELS, TowerWithHeads, load_result
from .batches import SIDE, RatedBatches, kinds_of
from .crops import DRAWINGS, UNRATED, clean_of, photos_of
from .rated import Rated, has_size
from .teacher import Teacher, read_teacher

SCOPE = "human ratings of photos, and synthetic distortions"
"""What its scores follow."""

DRAWN = 4.6
"""Level of a drawing, on 1 to 5."""


@dataclass(frozen=True)
class HumanStage(Stage):
    """Settings of the human stage."""

    steps: int = 2000
    learning_rate: float = 4e-4
    checkpoint: str = "qsit-nano"
    """Whose language model and projector it begins with."""
    frozen: float = 0.1
    """Share of the steps with the tower frozen."""
    human: float = 0.5
    """Share of the batches of rated photos; the others are of synthetic distortions."""
    scoring: float = 0.5
    """Share of the batches in which only the score is asked for."""
    augmentation: float = 0.5
    """Share of the distorted photos that are composed of several, flipped, and given another look."""
    clean: int = 1500
    """The most rated photos that are distorted, see crops.GOOD."""
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


@torch.inference_mode()
def levels_of(photos: list[Rated], images: list[Image.Image], teacher: Teacher) -> list[float]:
    """What people said of each photo on 1 to 5, what the teacher says where nobody did; DRAWN of what is no photo."""
    found = [photo.level for photo in photos] + [DRAWN] * (len(images) - len(photos))
    for number, image in enumerate(images[: len(photos)]):
        if np.isnan(found[number]):
            side = min(1024, *image.size) // 32 * 32
            left, top = (image.width - side) // 2, (image.height - side) // 2
            pixels = np.asarray(image.crop((left, top, left + side, top + side)))
            found[number] = float(teacher(torch.from_numpy(pixels.copy())[None]).softmax(-1)[0] @ LEVELS)
    return found


def begin(seer: TowerWithHeads, images: list[Image.Image], stage: HumanStage, aligned: bool) -> Learner:
    """The checkpoint with the new tower; its projector is ``aligned`` already where a state is resumed."""
    made = learner()
    take_weights(made, stage.checkpoint)
    made.take_tower(seer)
    if not aligned:
        old = learner()
        take_weights(old, stage.checkpoint)

        def said(views: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
            return old.model.model.multi_modal_projector(old.engine.features(pixels))

        fit_projector(made, images, said, steps=stage.aligning, seed=stage.seed + 17, rate=2e-3, warmup=20)
    return made


def train(rated: Path, photos: Path, tower: Path, teacher: Path, out: Path, stage: HumanStage) -> None:
    """Train, or resume, the whole model. Writes the checkpoint folder ``out`` at every state, the state beside it."""
    stage.begin()
    out.parent.mkdir(parents=True, exist_ok=True)
    state, seer = Path(f"{out}.state"), load_result(tower)
    shown = photos_of(rated, photos, Path(f"{out}.thumbnails.npz"), SIDE)
    people = [photo for photo in shown if photo.subset != UNRATED and has_size(photo.path, SIDE)]
    clean = clean_of(people + [photo for photo in shown if photo.subset == UNRATED], stage.clean)
    images = load([photo.path for photo in clean]) + drawings(DRAWINGS, stage.seed)
    levels = levels_of(clean, images, read_teacher(teacher))
    made = begin(seer, images, stage, state.exists())
    defects = kinds_of(people, seer, Path(f"{out}.kinds.npz"))
    tiling = made.engine.tiling
    synthetic = Batches(images, made.conversation, tiling, stage.seed, 0, stage.augmentation, stage.scoring, levels)
    asked = RatedBatches(people, defects, made.conversation, tiling, stage.seed, stage.scoring)
    print(f"{len(people)} rated photos, {len(images)} for synthetic distortions", flush=True)
    mixed = MixedBatches(asked, synthetic, stage.human, stage.seed)
    for loop in joint.steps(made, mixed, stage, state, lambda step: trapezoid(step, stage.steps), heads=None):
        if loop.saves:
            joint.write(made, out, scope=SCOPE, scope_kind="mixed")
