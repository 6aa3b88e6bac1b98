"""Files that nodes write and read: only below ComfyUI's own folders, and tables that can be continued."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from qsit_plugin.images.formats import SUFFIXES, suffix
from qsit_plugin.nodes.errors import InputError
from qsit_plugin.nodes.records import Record
from qsit_plugin.protocol import LEVELS
from qsit_plugin.scores import flat, score_row

COLUMNS = (
    "path", "score", "level", *LEVELS, "std", "width", "height", "model", "fingerprint", "dtype", "mode", "scope",
    "scope_kind", "error",
)  # fmt: skip
"""The header of a table: that of ``qsit score`` without level_mass and profile."""
WITHOUT_FINGERPRINT = tuple(name for name in COLUMNS if name not in ("fingerprint", "scope_kind"))
"""The header before rows said which weights they are of."""


def below(root: str | Path, name: str, what: str) -> Path:
    """``root / name``. Raises InputError where that lies outside of root, by ``..``, a drive or a link."""
    root = Path(root).resolve()
    path = (root / name.strip()).resolve()
    if not path.is_relative_to(root):
        raise InputError(f"{what} must stay inside {root.name}/, got {name!r}")
    return path


def image_files(folder: Path, recursive: bool) -> list[Path]:
    """Image files of a folder by their suffix, sorted; hidden ones are left out. Raises InputError for no folder."""
    if not folder.is_dir():
        raise InputError(f"no folder {folder}; give one that exists below ComfyUI's input or output folder")
    found: list[Path] = []
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if recursive and not name.startswith("."))
        found += [Path(place, n) for n in names if suffix(n) in SUFFIXES and not n.startswith(".")]
    return sorted(found)


def table_file(root: str | Path, name: str) -> Path:
    """The csv file of that name below root; its folder is made. Raises InputError for another kind of file."""
    path = below(root, name, "the csv file")
    if path.suffix.lower() != ".csv":
        raise InputError(f"the table's name must end in .csv, got {name!r}")
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def rows_in(path: Path) -> list[dict[str, str]]:
    """The rows of a table that this package wrote; none where there is no file. InputError for another table."""
    check_table(path)
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def check_table(path: Path) -> None:
    """Raise InputError for a table that rows cannot be added to: another kind, or one of an older version."""
    if not path.exists():
        return
    with path.open(encoding="utf-8", newline="") as stream:
        header = tuple(next(csv.reader(stream), COLUMNS))
    if header == WITHOUT_FINGERPRINT:
        raise InputError(
            f"{path.name} was begun by an older version of this package: its rows do not say which weights they were "
            "scored with (column fingerprint), and new ones are not mixed with them. Give another name for the csv "
            "file, or move this one away, and the images are scored again"
        )
    if header != COLUMNS:
        raise InputError(f"{path.name} is another kind of table; give another name for the csv file")


def append_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> Iterator[None]:
    """Append rows one by one, each on disk before the next is asked for; a new file gets a header."""
    check_table(path)
    new = not path.exists() or path.stat().st_size == 0
    with path.open("a", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, COLUMNS)
        if new:
            writer.writeheader()
        for row in rows:
            writer.writerow(row)
            stream.flush()
            yield


def row(path: str, record: Record) -> dict[str, Any]:
    """The row of one scored image; levels are spread out."""
    return {name: cell for name, cell in flat(score_row(path, record)).items() if name in COLUMNS}
