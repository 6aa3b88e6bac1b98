"""``export``: the same rows in every format, whole or not at all."""

from __future__ import annotations

import csv
import json
import os
import sqlite3
from pathlib import Path

import pytest

from qsit_plugin.bulk.export import export
from qsit_plugin.bulk.store import StoreError
from qsit_plugin.scores import COLUMNS
from tests.bulk.brightness import score


@pytest.fixture
def store(album: Path, tmp_path: Path) -> Path:
    score(tmp_path / "s.sqlite", album)
    return tmp_path / "s.sqlite"


def test_csv_jsonl_and_parquet_hold_the_same_rows_by_path(store: Path, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    for kind in ("csv", "jsonl", "parquet"):
        assert export(store, tmp_path / f"x.{kind}") == (4, 0)
    table = parquet.read_table(tmp_path / "x.parquet")
    assert table.column_names == list(COLUMNS)
    columns = table.to_pylist()
    rows = list(csv.DictReader((tmp_path / "x.csv").read_text("utf-8").splitlines()))
    lines = [json.loads(line) for line in (tmp_path / "x.jsonl").read_text("utf-8").splitlines()]
    paths = [row["path"] for row in lines]
    assert paths == sorted(paths) == [row["path"] for row in rows] == [row["path"] for row in columns]
    for line, row, column in zip(lines, rows, columns, strict=True):
        if "error" in line:
            assert column["score"] is None and row["score"] == ""
            assert column["error"] == row["error"] == f"{line['error']['type']}: {line['error']['message']}"
        else:
            assert line["score"] == float(row["score"]) == column["score"]
            assert line["probabilities"]["fair"] == float(row["fair"]) == column["fair"]
            assert column["error"] is None and (column["width"], column["height"]) == (16, 12)


def test_an_export_that_fails_leaves_the_old_table_and_nothing_beside_it(store: Path, tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("old")
    file = sqlite3.connect(store)
    file.execute("UPDATE result SET error = x'00' WHERE error IS NOT NULL")  # met behind a.png and b.png
    file.commit()
    file.close()
    with pytest.raises(TypeError):
        export(store, tmp_path / "x.csv")
    assert (tmp_path / "x.csv").read_text() == "old"
    assert [name for name in os.listdir(tmp_path) if "new" in name] == []


def test_a_damaged_store_is_an_error_that_names_it(store: Path, tmp_path: Path) -> None:
    file = sqlite3.connect(store)
    file.execute("ALTER TABLE result DROP COLUMN level")
    file.close()
    with pytest.raises(StoreError, match="s.sqlite: no such column"):
        export(store, tmp_path / "x.csv")


def test_images_without_a_score_by_this_model_are_counted_and_left_out(store: Path, tmp_path: Path) -> None:
    file = sqlite3.connect(store)
    file.execute("DELETE FROM result WHERE error IS NULL")
    file.commit()
    file.close()
    assert export(store, tmp_path / "x.csv") == (1, 3)


def test_an_unknown_format_is_refused_with_the_known_ones(store: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="csv, jsonl, parquet"):
        export(store, tmp_path / "x.xlsx")
