"""The last stage: the mean of the weights of two nanos, one of which went on from the other.

Each of the two overfits to other photos, their mean less to any: on new photos it puts more ladders in order than
either (README.md has the figures; the idea is that of "Model soups", arXiv 2203.05482).
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import load_file, save_file

from qsit_plugin.weights import resolve

WEIGHTS = "model.safetensors"


@dataclass(frozen=True)
class AverageStage:
    """Settings of the average."""

    other: str | None = None
    """The checkpoint to average with (qsit-nano, or a folder); none leaves the stage out."""
    share: float = 0.5
    """Weight of the new checkpoint; the other has the rest."""


def average(checkpoint: str | Path, other: str | Path, out: Path, share: float = AverageStage.share) -> None:
    """Write ``out``: the folder ``checkpoint`` with ``share`` of its weights and the rest of ``other``, each weight
    in its own dtype. Raises ValueError for a share outside [0, 1] and for checkpoints of other shapes."""
    if not 0.0 <= share <= 1.0:
        raise ValueError(f"share must be in [0, 1], got {share}")
    source = resolve(checkpoint)
    new, old = (load_file(folder / WEIGHTS) for folder in (source, resolve(other)))
    if {name: weight.shape for name, weight in new.items()} != {name: weight.shape for name, weight in old.items()}:
        raise ValueError(f"{checkpoint} and {other} are not of one architecture, so they have no mean")
    mean = {name: (share * w.float() + (1.0 - share) * old[name].float()).to(w.dtype) for name, w in new.items()}
    shutil.copytree(source, out, ignore=shutil.ignore_patterns(WEIGHTS), dirs_exist_ok=True)
    save_file(mean, out / WEIGHTS, metadata={"format": "pt"})
