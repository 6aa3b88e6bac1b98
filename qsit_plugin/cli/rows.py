"""One input's result as a row, in the three formats: table, csv, jsonl."""

from __future__ import annotations

from typing import Any

from qsit_plugin.images.reading import ImageError
from qsit_plugin.protocol import LEVELS
from qsit_plugin.scores import Score

COLUMNS = (
    "path", "score", "level", *LEVELS, "std", "level_mass", "width", "height", "model", "dtype", "profile", "mode",
    "scope", "error",
)  # fmt: skip
"""The header of a csv: the keys of a jsonl row with the five probabilities spread out, and the error."""


def score_row(path: object, score: Score, profile: str) -> dict[str, Any]:
    """The documented JSONL row of ``qsit score``; ``profile`` as ``options.profile_name`` gives it."""
    return {
        "path": str(path),
        "score": score.value,
        "level": score.level,
        "probabilities": {level: score.probabilities[level] for level in LEVELS},
        "std": score.std,
        "level_mass": score.level_mass,
        "width": score.width,
        "height": score.height,
        "model": score.model,
        "dtype": score.dtype,
        "profile": profile,
        "mode": score.mode,
        "scope": score.scope,
    }


def error_row(path: object, error: ImageError) -> dict[str, Any]:
    """The row of an input that failed."""
    return {"path": str(path), "error": {"type": type(error).__name__, "message": error.reason}}


def flat(row: dict[str, Any]) -> dict[str, Any]:
    """A jsonl row without nesting, for csv."""
    if "error" in row:
        return {"path": row["path"], "error": f"{row['error']['type']}: {row['error']['message']}"}
    return {key: value for key, value in row.items() if key != "probabilities"} | row.get("probabilities", {})


def table_cells(row: dict[str, Any]) -> tuple[str, str, str, str, str]:
    """Score, spread, level, size and path as they stand in a table."""
    if "error" in row:
        return "-", "-", "error", "-", row["path"]
    size = f"{row['width']}x{row['height']}"
    return f"{row['score']:.3f}", f"{row['std']:.2f}", row["level"], size, row["path"]
