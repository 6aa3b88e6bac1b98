"""The checkpoints that all arms begin with: nano's shape, and a light one, whose language model has half the width.
Both have the distilled tower, and a language model that has read codes and that tower's evidence, but no image."""

from __future__ import annotations

from pathlib import Path

from qsit_plugin.training.nano import evidence, language
from qsit_plugin.training.nano.architecture import WIDTH

from .data import Sizes

WIDTHS = {"light": WIDTH // 2, "primary": WIDTH}
"""Not half the layers: a model of two learned no letter (loss 1.42 after 1,200 steps, where guessing costs 1.39)."""

SEED = 0


def make_base(name: str, tower: Path, work: Path, sizes: Sizes, threads: int) -> Path:
    """The folder ``work/name``, made if it is missing; a language stage that was stopped goes on."""
    folder, spoken = work / name, work / f"{name}-language.safetensors"
    if (folder / "qsit.json").exists():
        return folder
    shape = {"width": WIDTHS[name], "seed": SEED, "threads": threads}
    if not spoken.exists():
        language.train(spoken, language.LanguageStage(steps=sizes.language, **shape))
    stage = evidence.EvidenceStage(views=sizes.views, steps=sizes.evidence, projector_steps=sizes.projector, **shape)
    evidence.train(work / "clean", tower, spoken, work / f"{name}.safetensors", stage, folder)
    return folder
