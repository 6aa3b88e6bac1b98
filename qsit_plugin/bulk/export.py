"""A store -> csv, jsonl or parquet: the rows of ``qsit score``, by path, whole or not at all."""

from __future__ import annotations

import csv
import json
import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

from qsit_plugin.protocol import LEVELS
from qsit_plugin.row_file import replacing
from qsit_plugin.scores import COLUMNS, flat, score_row

from .sources import SHARDS
from .store import NUMBERS, OF_RECIPE, VALUES, StoreError, in_words, open_to_read

GROUP = 10_000
"""Rows of one row group of a parquet file: what an export holds in memory."""


def export(
    store: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    kind: str | None = None,
    recipe: int | None = None,
    existing: bool = False,
) -> tuple[int, int]:
    """Write a table of all images of a store; a file that is there is replaced at the end.

    Args:
        kind: ``"csv"``, ``"jsonl"`` or ``"parquet"``; None: as ``out`` ends.
        recipe: the number of the recipe (weights, engine, dtype, profile, preprocessing) whose scores are taken; may be
            None where the store has one only.
        existing: leave out images that are no longer under their path.

    Returns: how many rows were written, and how many images have no score under this recipe and were left out.

    Raises:
        StoreError: the store cannot be read, or holds several recipes, which it lists, and none was chosen.
        ModuleNotFoundError: parquet without pyarrow; with the command that installs it.
        OSError: the file cannot be written.
    """
    kind = kind or Path(out).suffix.lower().removeprefix(".")
    if kind not in _WRITERS:
        raise ValueError(f"no format {kind!r}: give one of {', '.join(_WRITERS)}")
    with closing(open_to_read(store)) as file, in_words(os.fspath(store)):
        file.execute("BEGIN")  # one state of the store, while others write to it
        chosen = _choose(file, os.fspath(store), recipe)
        missing = 0

        def rows() -> Iterator[dict[str, Any]]:
            nonlocal missing
            for row in _rows(file, chosen):
                if existing and not _exists(row["path"]):
                    continue
                if "score" in row or "error" in row:
                    yield row
                else:
                    missing += 1

        with replacing(Path(out)) as fresh:
            count = _WRITERS[kind](fresh, rows())
    return count, missing


def _recipes(file: sqlite3.Connection) -> list[tuple[int, str, int]]:
    """Number, description and count of scores of each."""
    names = ", ".join(OF_RECIPE[:6])
    query = f"SELECT id, {names}, (SELECT count(*) FROM result WHERE recipe = id AND error IS NULL) FROM recipe"
    return [(number, ", ".join(filter(None, about)), count) for number, *about, count in file.execute(query)]


def _choose(file: sqlite3.Connection, path: str, recipe: int | None) -> int:
    known = _recipes(file)
    listing = "; ".join(f"{number}: {about} ({count:,} scores)" for number, about, count in known)
    if recipe is None and len(known) == 1:
        return known[0][0]
    if recipe not in [number for number, _, _ in known]:
        given = "scores of several models, which are not mixed" if recipe is None else f"no recipe {recipe}"
        raise StoreError(f"{path}: {given}; choose one with --recipe: {listing or 'there is none'}")
    return recipe


def _rows(file: sqlite3.Connection, recipe: int) -> Iterator[dict[str, Any]]:
    """All images, by path; a row with neither score nor error has no result under the recipe yet."""
    about = dict(
        zip(
            OF_RECIPE,
            file.execute(f"SELECT {', '.join(OF_RECIPE)} FROM recipe WHERE id = ?", (recipe,)).fetchone(),
            strict=True,
        )
    )
    values = ", ".join(f"result.{name}" for name in VALUES)
    query = f"""SELECT image.path, coalesce(image.error, result.error), {values} FROM image
        LEFT JOIN result ON result.sha256 = image.sha256 AND result.recipe = ? ORDER BY image.path"""
    for path, error, *numbers in file.execute(query, (recipe,)):
        path = os.fsdecode(path)
        if error is not None:
            kind, _, message = error.partition(": ")
            yield {"path": path, "error": {"type": kind, "message": message}}
        elif numbers[0] is None:
            yield {"path": path}
        else:
            record = about | dict(zip(VALUES, numbers, strict=True))
            record["probabilities"] = {level: record.pop(level) for level in LEVELS}
            yield score_row(path, record)


def _exists(path: str) -> bool:
    if os.path.lexists(path):
        return True
    inside = (str(parent) for parent in Path(path).parents)
    return any(parent.lower().endswith(SHARDS) and os.path.isfile(parent) for parent in inside)


def _csv(path: Path, rows: Iterable[dict[str, Any]]) -> int:
    count = 0
    with open(path, "w", encoding="utf-8", errors="backslashreplace", newline="") as stream:
        table = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
        table.writeheader()
        for count, row in enumerate(rows, 1):  # noqa: B007
            table.writerow(flat(row))
    return count


def _jsonl(path: Path, rows: Iterable[dict[str, Any]]) -> int:
    count = 0
    with open(path, "w", encoding="utf-8", errors="backslashreplace", newline="") as stream:
        for count, row in enumerate(rows, 1):  # noqa: B007
            stream.write(json.dumps(row, ensure_ascii=False) + "\n")
    return count


def _parquet(path: Path, rows: Iterable[dict[str, Any]]) -> int:
    try:
        import pyarrow as arrow
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise ModuleNotFoundError(
            "parquet needs pyarrow, which is not installed: pip install 'qsit-plugin[bulk]'", name="pyarrow"
        ) from error

    kinds = {**dict.fromkeys(NUMBERS, arrow.float64()), **dict.fromkeys(("width", "height"), arrow.int32())}
    schema = arrow.schema([(name, kinds.get(name, arrow.string())) for name in COLUMNS])
    cells, count = (_text_cells(flat(row)) for row in rows), 0
    with parquet.ParquetWriter(path, schema) as writer:
        while group := list(islice(cells, GROUP)):
            writer.write_table(arrow.Table.from_pylist(group, schema=schema))
            count += len(group)
    return count


def _text_cells(row: dict[str, Any]) -> dict[str, Any]:
    """Without what is no UTF-8, which parquet's texts must be; written as csv and jsonl write it."""
    return row | {"path": row["path"].encode("utf-8", "backslashreplace").decode("utf-8")}


_WRITERS = {"csv": _csv, "jsonl": _jsonl, "parquet": _parquet}
