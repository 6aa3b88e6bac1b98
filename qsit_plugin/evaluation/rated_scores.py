"""A table of one score a photo beside its MOS and split: what ``qsit bench calibrate`` reads."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from qsit_plugin.scores import LIMIT

from .datasets.tables import read_table

ONE_VALUE = ("scale", "dataset", "database", "model", "adapter", "fingerprint", "profile")
"""Columns that must not vary: scores of two models, and ratings of two databases, are not on one scale."""


@dataclass(frozen=True)
class RatedScores:
    """Scores and MOS (N,), the split of each; ``left_out``: rows without a score or MOS, as ``qsit score`` writes for
    a photo that it could not read. ``fingerprint``: of the weights that made the scores; None where no column says."""

    scores: np.ndarray
    mos: np.ndarray
    split: list[str]
    left_out: int
    fingerprint: str | None = None


def read_rated_scores(
    path: str | os.PathLike[str], *, score: str = "score", mos: str = "mos", split: str = "split"
) -> RatedScores:
    """Read the columns of these names from a csv or xlsx file, as ``tables.read_table`` does.

    Raises ValueError for a missing column, a value that is no number (with its line), a table without rows, scores with
    a limit on tiles or tokens (their column ``mode`` says so), and a table of several scales: a column called
    ``scale``, ``dataset``, ``database``, ``model``, ``adapter``, ``fingerprint`` or ``profile`` that holds more than
    one value.
    """
    records = read_table(Path(path), (score, mos, split), once=("mode", *ONE_VALUE))
    held = [record for record in records if record.has(score) and record.has(mos)]
    if not held:
        raise ValueError(f"{path} holds no row with a score and a MOS")
    texts = [record.texts() for record in held]
    for record, row in zip(held, texts, strict=True):
        if LIMIT in row.get("mode", ""):
            raise ValueError(
                f"{record.place}: a score in mode {row['mode']!r} cannot be calibrated, since calibrations hold "
                "without limits: score again without --max-tiles and --max-image-tokens"
            )
    for column in ONE_VALUE:
        values = {row.get(column, "") for row in texts}
        if len(values) > 1:
            shown = ", ".join(sorted(values)[:5])
            raise ValueError(
                f"{path} holds {len(values)} different values of {column!r} ({shown}): scores on different scales are "
                f"never pooled. Calibrate each on its own"
            )
    scores, ratings = (np.array([record.number(column) for record in held]) for column in (score, mos))
    splits, made_by = [row.get(split, "") for row in texts], texts[0].get("fingerprint") or None
    return RatedScores(scores, ratings, splits, len(records) - len(held), made_by)
