"""A store -> csv, jsonl or parquet: the rows of ``qsit score``, by path, whole or not at all."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

from qsit_plugin.row_file import replacing
from qsit_plugin.scores import COLUMNS, flat

from .store import NUMBERS, in_words, open_to_read
from .stored import choose_recipe, is_there, stored

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
        chosen = choose_recipe(file, os.fspath(store), recipe)
        missing = 0

        def rows() -> Iterator[dict[str, Any]]:
            nonlocal missing
            for path, _, row in stored(file, chosen):
                if existing and not is_there(path):
                    continue
                if "score" in row or "error" in row:
                    yield row
                else:
                    missing += 1

        with replacing(Path(out)) as fresh:
            count = _WRITERS[kind](fresh, rows())
    return count, missing


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


def write_parquet(path: Path, rows: Iterable[dict[str, Any]]) -> int:
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


_WRITERS = {"csv": _csv, "jsonl": _jsonl, "parquet": write_parquet}
