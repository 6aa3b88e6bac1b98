"""Q-Bench's task A3 (assessment): a score from the logits of "good" and "poor", compared with an IQA database.

The leaderboard's score is the softmax of the two logits at temperature 100, its figures are SRCC and PLCC without fit.
The temperature matters to PLCC alone: at 100 the softmax is all but linear in the difference of the logits.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from . import statistics
from .datasets.json_records import read_records

TEMPERATURE = 100.0


@dataclass(frozen=True)
class Logits:
    """One model on one database: image names, MOS (N,), logits of "good" and "poor" (N,)."""

    images: list[str]
    mos: np.ndarray
    good: np.ndarray
    poor: np.ndarray

    def scores(self, temperature: float = TEMPERATURE) -> np.ndarray:
        """Float64 (N,) in (0, 1): the probability of "good" against "poor"."""
        return 1.0 / (1.0 + np.exp((self.poor - self.good) / temperature))


def read_logits(path: str | os.PathLike[str]) -> Logits:
    """A logit file of Q-Bench: objects of img_path, gt_score, logit_good, logit_poor.

    Ratings and logits may be strings with blanks around the number ("2.82 "), as in some of Q-Bench's files. Raises
    ValueError, with the row, for a missing key or a value that is no finite number.
    """
    rows = read_records(path)
    images = [str(_value(row, "img_path", path, number)) for number, row in enumerate(rows)]
    mos, good, poor = (
        np.array([_number(row, key, path, number) for number, row in enumerate(rows)])
        for key in ("gt_score", "logit_good", "logit_poor")
    )
    return Logits(images, mos, good, poor)


def assessment(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The figures of one logit file: ``{"task": "A3", "file", "n", "repeated", "srcc", "plcc", …}``.

    "srcc" and "plcc" are the leaderboard's; the rest is that of ``statistics.correlations``. "repeated" counts rows
    whose image stood in the file before (one published file has such a row); they are kept, as the leaderboard does.
    """
    table = read_logits(path)
    repeated = len(table.images) - len(set(table.images))
    figures = statistics.correlations(table.scores(), table.mos)
    return {"task": "A3", "file": Path(path).name, "repeated": repeated, **figures}


def _value(row: dict[str, Any], key: str, path: object, number: int) -> Any:
    if key not in row:
        raise ValueError(f"{path}: row {number} has no {key!r}; it has {', '.join(row) or 'no keys'}")
    return row[key]


def _number(row: dict[str, Any], key: str, path: object, number: int) -> float:
    value = _value(row, key, path, number)
    try:
        found = float(value)
    except (TypeError, ValueError):
        found = math.nan
    if not math.isfinite(found):
        raise ValueError(f"{path}: row {number} has {key} {value!r}, it must be a finite number")
    return found
