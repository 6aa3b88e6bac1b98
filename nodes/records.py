"""QSIT_SCORES: what travels between the nodes. A list with one JSON-ready record an image, in the batch's order."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import fmean
from typing import Any

from qsit_plugin.nodes.errors import InputError

Record = dict[str, Any]
"""``Score.to_dict()``: score in [0, 1], level, probabilities, std, width, height, model, fingerprint, mode and more."""

AGGREGATES: dict[str, Callable[[Sequence[float]], float]] = {"mean": fmean, "lowest": min, "highest": max}


def values(records: Any, count: int | None = None, what: str = "images") -> list[float]:
    """The scores of the records, in [0, 1].

    Raises InputError for anything but records, and where there are not ``count`` of them.
    """
    if not isinstance(records, list) or not all(isinstance(r, dict) and "score" in r for r in records):
        raise InputError("scores must come from the scores output (QSIT_SCORES) of a Q-SiT node")
    if count is not None and len(records) != count:
        raise InputError(
            f"{len(records)} scores for {count} {what}: connect the images that were scored, or score these again"
        )
    return [float(r["score"]) for r in records]


def aggregate(numbers: Sequence[float], how: str) -> float:
    """One number for a batch: its mean, lowest or highest value."""
    if how not in AGGREGATES:
        raise InputError(f"aggregate must be one of {', '.join(AGGREGATES)}, got {how!r}")
    return float(AGGREGATES[how](numbers))


def fraction(value: float, name: str) -> float:
    """A finite number in [0, 1]; raises InputError (NaN passes ComfyUI's own range checks)."""
    if not math.isfinite(value) or not 0.0 <= value <= 1.0:
        raise InputError(f"{name} must be a number from 0 to 1, got {value}")
    return value


def report(records: Sequence[Record]) -> str:
    """One line an image: number, score, level, and what departs from the released procedure."""
    return "\n".join(line(i, record) for i, record in enumerate(records, 1))


def line(number: int, record: Record) -> str:
    mode = record.get("mode", "released")
    note = "" if mode == "released" else f"  [{mode}]"
    return f"{number}: {record['score']:.3f} {record['level']} (± {record['std']:.2f}){note}"
