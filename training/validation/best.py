"""Which state of a run is the best one so far, and its copy in ``output/best``."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from qsit_plugin.checkpoint import Checkpoint
from qsit_plugin.evaluation.figures import LEAST

from ..balance.objective import corrected, harmonic, scoring_of
from ..checkpoints import writing
from ..config import RunConfig
from ..export import export
from .measure import Figures

FOLDER = "best"


def goal(figures: Figures) -> float | None:
    """What is to be as high as possible, in [0, 1]: the harmonic mean of score and interpretation.

    Score is (SRCC + PLCC) / 2, interpretation the accuracy of choices above chance, (accuracy - chance) / (1 - chance);
    both are 0 below 0. Where the rows have only one of the two, that one; where they have neither, None. Equal scores
    for all images have no correlation and count 0.
    """
    parts = []
    if figures.counts["score"] >= LEAST:
        parts.append(scoring_of(figures.to_dict()))
    if figures.accuracy is not None and figures.chance is not None:
        parts.append(corrected(figures.accuracy, figures.chance))
    return float(harmonic(parts[0], parts[-1])) if parts else None


def rank(line: Mapping[str, Any]) -> tuple[float, float]:
    """The larger the better, of a line of the journal whose goal is not None: the goal, and between equal ones, as
    where no choice is right above chance yet, the lower sum of the two losses."""
    return line["goal"], -((line["score_loss"] or 0.0) + (line["interpret_loss"] or 0.0))


def keep(model: Any, checkpoint: Checkpoint, config: RunConfig, about: Mapping[str, Any]) -> Path:
    """Write the model as it is now into ``output/best``, in place of what was there, with ``about`` as validation.json.

    For lora it is the adapter, also where the result is to be merged: merging cannot be taken back. The model is not
    changed. Killed half-way, the folder is the old one, or missing beside a whole ``best.new``.
    """
    target = Path(config.output) / FOLDER
    fresh = target.with_name(FOLDER + ".new")
    shutil.rmtree(fresh, ignore_errors=True)
    if config.method == "lora":
        config = replace(config, result="adapter", result_dtype=None)
    with writing(fresh):
        export(model, checkpoint, config, fresh)
    (fresh / "validation.json").write_text(json.dumps(about, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    if target.exists():
        shutil.rmtree(target)
    fresh.rename(target)
    return target
