"""What a store holds, read again: its recipes, and the images with the rows that ``qsit score`` would write of them."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from typing import Any, NamedTuple

from qsit_plugin.protocol import LEVELS
from qsit_plugin.scores import score_row

from .inputs.shards import shards_above
from .store import OF_RECIPE, VALUES, StoreError


class Stored(NamedTuple):
    """An image, and its row: with ``score``, or with ``error``, or with neither where it has no result under the recipe
    yet. ``sha256`` of its content is None where it could not be read."""

    path: str
    sha256: bytes | None
    row: dict[str, Any]


def choose_recipe(file: sqlite3.Connection, path: str, recipe: int | None) -> int:
    """The number of a recipe (weights, engine, dtype, profile, preprocessing); None: of the only one.

    Raises StoreError, which lists them, where there are several and none was chosen, or not this one.
    """
    known = _recipes(file)
    listing = "; ".join(f"{number}: {about} ({count:,} scores)" for number, about, count in known)
    if recipe is None and len(known) == 1:
        return known[0][0]
    if recipe not in [number for number, _, _ in known]:
        given = "scores of several models, which are not mixed" if recipe is None else f"no recipe {recipe}"
        raise StoreError(f"{path}: {given}; choose one with --recipe: {listing or 'there is none'}")
    return recipe


def stored(file: sqlite3.Connection, recipe: int) -> Iterator[Stored]:
    """All images, by path. Paths that are no UTF-8 come last."""
    about = about_recipe(file, recipe)
    values = ", ".join(f"result.{name}" for name in VALUES)
    query = f"""SELECT image.path, image.sha256, coalesce(image.error, result.error), {values} FROM image
        LEFT JOIN result ON result.sha256 = image.sha256 AND result.recipe = ? ORDER BY image.path"""
    for path, sha256, error, *numbers in file.execute(query, (recipe,)):
        path = os.fsdecode(path)
        if error is not None:
            kind, _, message = error.partition(": ")
            yield Stored(path, sha256, {"path": path, "error": {"type": kind, "message": message}})
        elif numbers[0] is None:
            yield Stored(path, sha256, {"path": path})
        else:
            record = about | dict(zip(VALUES, numbers, strict=True))
            record["probabilities"] = {level: record.pop(level) for level in LEVELS}
            yield Stored(path, sha256, score_row(path, record))


def about_recipe(file: sqlite3.Connection, recipe: int) -> dict[str, Any]:
    """What a recipe says of itself: model, fingerprint, engine, dtype, profile, mode, scope."""
    found = file.execute(f"SELECT {', '.join(OF_RECIPE)} FROM recipe WHERE id = ?", (recipe,)).fetchone()
    return dict(zip(OF_RECIPE, found, strict=True))


def is_there(path: str) -> bool:
    """Whether an image is still under its path, or the shard or dataset that it lies in. Addresses are not asked."""
    return os.path.lexists(path) or "://" in path or any(map(os.path.isfile, shards_above(path)))


def _recipes(file: sqlite3.Connection) -> list[tuple[int, str, int]]:
    """Number, description and count of scores of each."""
    names = ", ".join(OF_RECIPE[:6])
    query = f"SELECT id, {names}, (SELECT count(*) FROM result WHERE recipe = id AND error IS NULL) FROM recipe"
    return [(number, ", ".join(filter(None, about)), count) for number, *about, count in file.execute(query)]
