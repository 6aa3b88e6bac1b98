"""A CSV of one score a photo beside its MOS and split: what ``qsit bench calibrate`` reads."""

from __future__ import annotations

import csv
import os
from dataclasses import dataclass

import numpy as np

from qsit_plugin.scores import LIMIT

from .datasets.tables import check_once, strict_rows

ONE_VALUE = ("scale", "dataset", "database", "model", "adapter", "profile")
"""Columns that must not vary: scores of two models, and ratings of two databases, are not on one scale."""


@dataclass(frozen=True)
class RatedScores:
    """Scores and MOS (N,), the split of each; ``left_out``: rows without a score or MOS, as ``qsit score`` writes for
    a photo that it could not read."""

    scores: np.ndarray
    mos: np.ndarray
    split: list[str]
    left_out: int


def read_rated_scores(
    path: str | os.PathLike[str], *, score: str = "score", mos: str = "mos", split: str = "split"
) -> RatedScores:
    """Read the columns of these names.

    Raises ValueError for a missing column, a value that is no number (with its line), a table without rows, scores with
    a limit on tiles or tokens (their column ``mode`` says so), and a table of several scales: a column called
    ``scale``, ``dataset``, ``database``, ``model``, ``adapter`` or ``profile`` that holds more than one value.
    """
    found: dict[str, set[str]] = {column: set() for column in ONE_VALUE}
    scores, ratings, splits, left_out = [], [], [], 0
    with open(path, encoding="utf-8-sig", newline="") as stream:
        table = csv.DictReader(stream, strict=True)
        header = table.fieldnames or ()
        missing = [column for column in (score, mos, split) if column not in header]
        if missing:
            raise ValueError(f"{path} has no column {missing[0]!r}; its columns are {', '.join(header) or 'none'}")
        check_once(path, header, (score, mos, split, "mode", *ONE_VALUE))
        for row in strict_rows(table, path):
            if not (row[score] or "").strip() or not (row[mos] or "").strip():
                left_out += 1
                continue
            if LIMIT in (row.get("mode") or ""):
                raise ValueError(
                    f"{path}, line {table.line_num}: a score in mode {row['mode']!r} cannot be calibrated, since "
                    "calibrations hold without limits: score again without --max-tiles and --max-image-tokens"
                )
            for column in found.keys() & row.keys():
                found[column].add((row[column] or "").strip())
            scores.append(_number(row[score], score, path, table.line_num))
            ratings.append(_number(row[mos], mos, path, table.line_num))
            splits.append((row[split] or "").strip())
    if not scores:
        raise ValueError(f"{path} holds no row with a score and a MOS")
    for column, values in found.items():
        if len(values) > 1:
            shown = ", ".join(sorted(values)[:5])
            raise ValueError(
                f"{path} holds {len(values)} different values of {column!r} ({shown}): scores on different scales are "
                f"never pooled. Calibrate each on its own"
            )
    return RatedScores(np.array(scores), np.array(ratings), splits, left_out)


def _number(text: str, column: str, path: object, line: int) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{path}, line {line}: {column} is {text!r}, which is no number") from None
