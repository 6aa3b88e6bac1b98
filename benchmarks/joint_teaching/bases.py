"""The checkpoints that all arms begin with: nano's shape, and a light one with half the language layers. Both have the
distilled tower, and a language model that has read codes and that tower's evidence, but no image."""

from __future__ import annotations

from pathlib import Path

from qsit_plugin.training.nano import evidence, language
from qsit_plugin.training.nano.architecture import TEXT_LAYERS

from .data import Sizes

LAYERS = {"light": TEXT_LAYERS // 2, "primary": TEXT_LAYERS}
SEED = 0


def make_base(name: str, tower: Path, work: Path, sizes: Sizes, threads: int) -> Path:
    """The folder ``work/name``, made if it is missing; a language stage that was stopped goes on."""
    folder, spoken = work / name, work / f"{name}-language.safetensors"
    if (folder / "qsit.json").exists():
        return folder
    shape = {"layers": LAYERS[name], "seed": SEED, "threads": threads}
    if not spoken.exists():
        language.train(spoken, language.LanguageStage(steps=sizes.language, **shape))
    stage = evidence.EvidenceStage(views=sizes.views, steps=sizes.evidence, projector_steps=sizes.projector, **shape)
    evidence.train(work / "clean", tower, spoken, work / f"{name}.safetensors", stage, folder)
    return folder
