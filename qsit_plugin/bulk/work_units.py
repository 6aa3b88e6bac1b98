"""What is to be scored -> units of work, each of which a worker turns into one Parquet file, its part of the table.

A unit is a tar shard, or some hundred image files. Only names are listed here: shards are opened by the workers. A part
is written whole or not at all, under a name that follows from what is in its unit and from the recipe, so that a unit
that a worker or a run left unfinished is done again, and one that is finished is not.
"""

from __future__ import annotations

import hashlib
import os
import platform
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qsit_plugin.errors import QSiTError
from qsit_plugin.images.errors import ImageError
from qsit_plugin.images.formats import LEFT_OUT, SUFFIXES, suffix
from qsit_plugin.images.reading import Content
from qsit_plugin.scores import error_row

from .export import write_parquet
from .inputs.datasets_on_disk import is_dataset
from .inputs.shards import SHARDS
from .inputs.source import Source
from .inputs.sources import sources
from .scoring import Records, read_ahead

IMAGES = 500
"""Image files of one unit: what is done again where a worker dies, and rows of one file of the table."""


class UnseenError(QSiTError):
    """A worker does not see what the program that started it sees: another machine without the same folders."""


@dataclass(frozen=True, slots=True)
class Item:
    """A name that is to be scored, with size and time of change as they were when it was listed, None where it was not
    there; or the path and the reason of what cannot be scored."""

    name: str
    size: int | None = None
    mtime_ns: int | None = None
    failed: str | None = None


def units(
    names: Iterable[str | ImageError], *, recursive: bool = True, skipped: Counter[str] | None = None
) -> Iterator[list[Item]]:
    """Units of work of files, folders and tar shards, in the order given, a folder's by name.

    ``recursive``, ``skipped``: as ``sources.sources`` has them. What is no image gets its error from the worker.
    """
    waiting: list[Item] = []
    for name in names:
        for item in _items(name, recursive, skipped):
            if item.name.lower().endswith(SHARDS) or "://" in item.name or os.path.isdir(item.name):
                yield [item]
                continue
            waiting.append(item)
            if len(waiting) == IMAGES:
                yield waiting
                waiting = []
    if waiting:
        yield waiting


def _items(name: str | ImageError, recursive: bool, skipped: Counter[str] | None) -> Iterator[Item]:
    if isinstance(name, ImageError):
        yield Item(name.source, failed=name.reason)
    elif not os.path.isdir(name):
        yield _item(name if "://" in name else os.path.abspath(name))
    else:
        empty = True
        for path in _in_folder(os.path.abspath(name), recursive, skipped):
            empty = False
            yield path
        if empty:  # a folder of another kind, or one without images: ``sources`` knows
            yield _item(os.path.abspath(name))


def _in_folder(folder: str, recursive: bool, skipped: Counter[str] | None) -> Iterator[Item]:
    """Images, shards and datasets in a folder, by name; hidden ones left out, links to folders not entered."""
    denied: list[OSError] = []
    for place, folders, files in os.walk(folder, onerror=denied.append):
        if is_dataset(place):
            folders.clear()
            yield _item(place)
            continue
        folders[:] = sorted(inner for inner in folders if recursive and not inner.startswith("."))
        for file in sorted(name for name in files if not name.startswith(".")):
            if suffix(file) in SUFFIXES or file.lower().endswith(SHARDS):
                yield _item(os.path.join(place, file))
            elif skipped is not None and suffix(file) in LEFT_OUT:
                skipped["x" + suffix(file)] += 1
    for error in denied:
        yield Item(str(error.filename), failed=f"cannot list this folder: {error.strerror}")


def _item(path: str) -> Item:
    try:
        about = os.stat(path)
    except (OSError, ValueError):
        return Item(path)
    return Item(path, about.st_size, about.st_mtime_ns)


def part_name(unit: list[Item], recipe: str) -> str:
    """The name of a unit's file. Another one for other names, sizes or times of change, and for another recipe."""
    text = repr([(os.fsencode(item.name), item.size, item.mtime_ns, item.failed) for item in unit])
    return f"part-{hashlib.sha256(f'{recipe} {text}'.encode()).hexdigest()[:24]}.parquet"


def write_part(folder: Path, part: str, unit: list[Item], scorer: Records, *, recursive: bool = True) -> dict[str, Any]:
    """Score a unit into its file, or take the file that is there.

    Returns: ``rows``, and ``errors``: path and reason of each that failed.

    Raises:
        UnseenError: this machine has not got the folders. Else what ``Scorer`` raises.
    """
    import pyarrow.compute as compute
    import pyarrow.parquet as parquet

    path = folder / part
    if not path.exists():
        _refuse_unseen(unit)
        # Of this worker alone. Readers of a folder of Parquet files pass over what begins with _.
        fresh = folder / f"_{part}.{platform.node()}.{os.getpid()}"
        try:
            write_parquet(fresh, rows(unit, scorer, recursive=recursive))
            with fresh.open("rb+") as written:
                os.fsync(written.fileno())
            fresh.replace(path)
        finally:
            fresh.unlink(missing_ok=True)
    table = parquet.read_table(path, columns=["path", "error"])
    failed = table.filter(compute.is_valid(table["error"])).to_pylist()
    return {"rows": table.num_rows, "errors": [(row["path"], row["error"]) for row in failed]}


def _refuse_unseen(unit: list[Item]) -> None:
    """A file may vanish while others are scored, which is its own error; with its folder, or with all others, it was
    never here."""
    known = [item for item in unit if item.size is not None and "://" not in item.name]
    gone = [item for item in known if not os.path.lexists(item.name)]
    if gone and (not os.path.isdir(os.path.dirname(gone[0].name)) or len(gone) == len(known) > 1):
        raise UnseenError(
            f"{gone[0].name} is not there for a worker on {platform.node()}: images and the table must lie on "
            "storage that every node mounts under the same path"
        )


def rows(unit: list[Item], scorer: Records, *, recursive: bool = True) -> Iterator[dict[str, Any]]:
    """The rows of ``qsit score`` for the images of a unit, in order, a few held at a time."""
    waiting: deque[tuple[str, dict[str, Any] | None]] = deque()  # path, and the row of one that never reaches the model

    def contents() -> Iterator[Content]:
        for path, outcome in (outcome for _, outcome in read_ahead(_read, _found(unit, recursive))):
            if isinstance(outcome, ImageError):
                waiting.append((path, error_row(path, outcome)))
            else:
                waiting.append((path, None))
                yield Content(outcome, path)

    for record in scorer.iter_records(contents()):
        while waiting[0][1] is not None:
            yield waiting.popleft()[1]  # type: ignore[misc]
        yield {"path": waiting.popleft()[0], **record}
    yield from (row for _, row in waiting if row is not None)


def _found(unit: list[Item], recursive: bool) -> Iterator[Source | ImageError]:
    for item in unit:
        if item.failed is not None:
            yield ImageError(item.name, item.failed)
        else:
            yield from sources([item.name], recursive=recursive)


def _read(found: Source | ImageError) -> tuple[str, bytes | ImageError]:
    if isinstance(found, ImageError):
        return found.source, found
    try:
        return found.path, found.read()
    except ImageError as error:
        return found.path, error
