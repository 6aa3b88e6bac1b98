"""Files that nodes write and read: only below ComfyUI's own folders, and tables that can be continued."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qsit_plugin.images.formats import SUFFIXES, left_out, suffix
from qsit_plugin.nodes.errors import InputError
from qsit_plugin.nodes.records import Record
from qsit_plugin.protocol import LEVELS
from qsit_plugin.row_file import replacing, why
from qsit_plugin.scores import flat, score_row

NAME_BYTES = 240
"""A name has 255 bytes on most disks; number and suffix need the rest."""

COLUMNS = (
    "path", "score", "level", *LEVELS, "std", "width", "height", "model", "fingerprint", "dtype", "mode", "scope",
    "scope_kind", "error", "size", "mtime_ns",
)  # fmt: skip
"""The header of a table: that of ``qsit score`` without level_mass and profile, and the state of the file."""
EXPLAINED = (*COLUMNS, "explanation")
"""The header of a table whose images were put in words."""
WITHOUT_STATE = COLUMNS[:-2]
"""The header before rows said of which state of the file they are; rows can still be added."""
WITHOUT_FINGERPRINT = tuple(name for name in WITHOUT_STATE if name not in ("fingerprint", "scope_kind"))
"""The header before rows said which weights they are of."""


def below(root: str | Path, name: str, what: str) -> Path:
    """``root / name``. Raises InputError where that lies outside of root, by ``..``, a drive or a link."""
    root = Path(root).resolve()
    try:
        path = (root / name.strip()).resolve()
    except (OSError, RuntimeError, ValueError) as error:  # a link that loops, a NUL
        raise InputError(f"{what} {name!r} cannot be followed: {error}") from error
    if not path.is_relative_to(root):
        raise InputError(f"{what} must stay inside {root.name}/, got {name!r}")
    return path


def check_prefix(root: str | Path, prefix: str) -> None:
    """Raise InputError for the prefix of a file's name that lies outside of root, is empty, or too long for a disk."""
    if os.path.normpath(prefix.strip() or ".").endswith("."):
        raise InputError(
            f"filename_prefix makes no name, got {prefix!r}; end it with one, such as qsit/%level%_%score%"
        )
    below(root, prefix, "filename_prefix")
    for part in Path(prefix).parts:
        if len(part.encode("utf-8", "surrogatepass")) > NAME_BYTES:
            raise InputError(f"filename_prefix makes a name of over {NAME_BYTES} bytes ({part[:40]}...); shorten it")


def write_new(path: Path, content: bytes, state: str) -> None:
    """Write a file that is not there yet, whole or not at all; ``state`` is told where that fails, by InputError."""
    try:
        with path.open("xb") as stream:
            stream.write(content)
    except FileExistsError as error:
        raise InputError(f"{path.name} is there already; {state}") from error
    except OSError as error:
        path.unlink(missing_ok=True)
        raise InputError(f"cannot write {path.name}: {why(error)}; {state}") from error


@dataclass(frozen=True)
class Found:
    """Image files of a folder, sorted; the number of links among them that were left out; and of other pictures and
    films, as "3 files left out (.cr2)"."""

    files: list[Path]
    links_left_out: int
    others_left_out: str


def image_files(root: Path, folder: Path, recursive: bool) -> Found:
    """Image files of a folder by their suffix; hidden ones are left out. Raises InputError for no folder.

    Links to folders are not followed. Of links to files those are left out that lead out of root, nowhere or in a loop.
    """
    if not folder.is_dir():
        raise InputError(f"no folder {folder}; give one that exists below ComfyUI's input or output folder")
    there: list[Path] = []
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if recursive and not name.startswith("."))
        there += [Path(place, name) for name in names if not name.startswith(".")]
    found = [path for path in there if suffix(path.name) in SUFFIXES]
    files = sorted(path for path in found if not path.is_symlink() or _leads_below(root, path))
    return Found(files, len(found) - len(files), left_out(path.name for path in there))


def _leads_below(root: Path, link: Path) -> bool:
    try:
        return link.resolve(strict=True).is_relative_to(root.resolve())
    except (OSError, RuntimeError):  # leads nowhere, or in a loop
        return False


def state_of(path: Path) -> dict[str, int | str]:
    """``size`` and ``mtime_ns`` of a file, for its row; empty where the file has gone."""
    try:
        about = path.stat()
    except OSError:
        return {"size": "", "mtime_ns": ""}
    return {"size": about.st_size, "mtime_ns": about.st_mtime_ns}


def table_file(root: str | Path, name: str) -> Path:
    """The csv file of that name below root; its folder is made. Raises InputError for another kind of file."""
    path = below(root, name, "the csv file")
    if path.suffix.lower() != ".csv":
        raise InputError(f"the table's name must end in .csv, got {name!r}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"no folder can be made for the csv file {name!r}: {why(error)}; give another name") from error
    return path


def rows_in(path: Path) -> list[dict[str, str]]:
    """The rows of a table that this package wrote; none where there is no file. InputError for another table."""
    check_table(path)
    if not path.exists():
        return []
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            return list(csv.DictReader(stream))
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path.name} is no table in UTF-8; give another name for the csv file") from error


def check_table(path: Path) -> None:
    """Raise InputError for a table that rows cannot be added to: another kind, one of an older version, or locked."""
    if not path.exists():
        return
    try:
        with path.open("r+"):  # to write, which a spreadsheet that has it open may forbid
            header = columns_of(path)
    except OSError as error:
        raise InputError(f"cannot write to {path.name}: {why(error)}; give another name for the csv file") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path.name} is no table in UTF-8; give another name for the csv file") from error
    if header == WITHOUT_FINGERPRINT:
        raise InputError(
            f"{path.name} was begun by an older version of this package: its rows do not say which weights they were "
            "scored with (column fingerprint), and new ones are not mixed with them. Give another name for the csv "
            "file, or move this one away, and the images are scored again"
        )
    if header not in (COLUMNS, EXPLAINED, WITHOUT_STATE):
        raise InputError(f"{path.name} is another kind of table; give another name for the csv file")


def append_rows(path: Path, rows: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Append rows and give them back, each on disk before the next is asked for; a new file gets a header."""
    check_table(path)
    new = not path.exists() or path.stat().st_size == 0
    columns = COLUMNS if new else columns_of(path)
    with path.open("a", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, columns, extrasaction="ignore")
        if new:
            writer.writeheader()
        for row in rows:
            writer.writerow(row)
            stream.flush()
            yield row


def rewrite(path: Path, rows: Iterable[Mapping[str, Any]], columns: Sequence[str] = COLUMNS) -> None:
    """Put a table with these rows and this header in the place of the one that is there, whole or not at all."""
    try:
        with replacing(path) as fresh, fresh.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.DictWriter(stream, columns, restval="")
            writer.writeheader()
            writer.writerows(rows)
    except OSError as error:
        raise InputError(f"cannot write to {path.name}: {why(error)}; give another name for the csv file") from error


def columns_of(path: Path) -> tuple[str, ...]:
    """The header of a table; today's where the file is empty."""
    with path.open(encoding="utf-8", newline="") as stream:
        return tuple(next(csv.reader(stream), COLUMNS))


def row(path: str, record: Record) -> dict[str, Any]:
    """The row of one scored image; levels are spread out."""
    return {name: cell for name, cell in flat(score_row(path, record)).items() if name in COLUMNS}
