"""Where rows and texts go: stdout or a file, as a table, csv or jsonl, flushed as they come."""

from __future__ import annotations

import csv
import json
import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO, cast

from qsit_plugin.row_file import FileBusy, RowFile, refuse_if_busy
from qsit_plugin.scores import COLUMNS, flat

from .failures import WRONG_USAGE, note, stop

FORMATS = {
    "table": (".txt",), "text": (".txt",), "csv": (".csv",), "jsonl": (".jsonl", ".ndjson"), "json": (".json",),
    "markdown": (".md",), "sqlite": (".sqlite", ".sqlite3", ".db"), "parquet": (".parquet",),
    "html": (".html", ".htm"),
}  # fmt: skip
"""Every format that a command writes, and the suffixes of its files."""

HEADER = ("score", "spread", "level", "size", "path")
_WIDTHS = (6, 6, 9, 10, 0)


class RowWriter(ABC):
    """Takes rows one by one; a context manager, so that what came so far is complete however it ends (Ctrl-C)."""

    def __init__(self, stream: TextIO):
        self.stream = stream

    @abstractmethod
    def write(self, row: dict[str, Any]) -> None:
        """Take one row, a dictionary as ``scores.py`` makes it."""

    def finish(self) -> None:
        self.stream.flush()

    def __enter__(self) -> RowWriter:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if not isinstance(error, OSError):  # the pipe is closed or the disk is full: finishing would fail again
            self.finish()


class JsonLines(RowWriter):
    """One JSON object a line, each line flushed."""

    def write(self, row: dict[str, Any]) -> None:
        self.stream.write(json.dumps(row, ensure_ascii=False) + "\n")
        self.stream.flush()


class Csv(RowWriter):
    """A header, then one flat row an input, each flushed. A nested row is flattened by ``flatten``."""

    def __init__(
        self,
        stream: TextIO,
        columns: Sequence[str],
        flatten: Callable[[dict[str, Any]], dict[str, Any]],
        *,
        header: bool = True,
    ):
        super().__init__(stream)
        self.flatten = flatten
        self.table = csv.DictWriter(stream, columns, lineterminator="\n")
        if header:
            self.table.writeheader()

    def write(self, row: dict[str, Any]) -> None:
        self.table.writerow(self.flatten(row))
        self.stream.flush()


def table_cells(row: dict[str, Any]) -> tuple[str, str, str, str, str]:
    """Score, spread, level, size and path as they stand in a table."""
    if "error" in row:
        return "-", "-", "error", "-", row["path"]
    size = f"{row['width']}x{row['height']}"
    return f"{row['score']:.3f}", f"{row['std']:.2f}", row["level"], size, row["path"]


class PlainTable(RowWriter):
    """Aligned columns without frames, line by line; the path comes last, so that nothing has to wait for its width."""

    def __init__(self, stream: TextIO):
        super().__init__(stream)
        self._line(HEADER)

    def write(self, row: dict[str, Any]) -> None:
        self._line(table_cells(row))
        self.stream.flush()

    def _line(self, cells: Sequence[str]) -> None:
        padded = [cell.ljust(width) for cell, width in zip(cells, _WIDTHS, strict=True)]
        self.stream.write("  ".join(padded) + "\n")


class TerminalTable(RowWriter):
    """A rich table, drawn at the end: its column widths are known only then."""

    def __init__(self, stream: TextIO):
        super().__init__(stream)
        self.rows: list[dict[str, Any]] = []

    def write(self, row: dict[str, Any]) -> None:
        self.rows.append(row)

    def finish(self) -> None:
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table()
        for name in HEADER:
            table.add_column(name, justify="right" if name in ("score", "spread") else "left", no_wrap=name != "path")
        for row in self.rows:
            cells = [Text(cell) for cell in table_cells(row)]  # Text: a path may look like rich's markup
            table.add_row(*cells, style="red" if "error" in row else None)
        if self.rows:
            Console(file=self.stream).print(table)


def choose_format(given: str | None, out: str | None, allowed: Sequence[str], default: str) -> str:
    """The format asked for, else that of the file's suffix, else the default. Ends with status 2 for any other."""
    if given is not None:
        if given not in allowed:
            stop(f"no format {given!r}: give one of {', '.join(allowed)}", WRONG_USAGE)
        return given
    if out is None:
        return default
    for kind in allowed:
        if Path(out).suffix.lower() in FORMATS[kind]:
            return kind
    parquet = Path(out).suffix.lower() in FORMATS["parquet"] and "sqlite" in allowed
    others = "; for parquet, --engine-on, or --out FILE.sqlite and then qsit export" if parquet else ""
    stop(f"cannot tell the format of {out!r} from its suffix: give --format {'|'.join(allowed)}{others}", WRONG_USAGE)


def check_target(out: str | None, inputs: Sequence[object] = ()) -> None:
    """End with status 2 for a file that cannot be written, before the seconds of loading a model are spent."""
    if out is None:
        return
    target, real = Path(out), os.path.realpath(out)  # Path.resolve raises for a link that leads back to itself
    if any(isinstance(item, Path) and os.path.realpath(item) == real for item in inputs):
        stop(f"{out} is one of the inputs: give --out another name", WRONG_USAGE)
    if target.is_dir():
        stop(f"cannot write {out}: it is a folder", WRONG_USAGE)
    if not Path(real).parent.is_dir():
        stop(f"cannot write {out}: the folder {target.parent} does not exist", WRONG_USAGE)
    try:
        refuse_if_busy(out)
    except FileBusy as error:
        stop(str(error), WRONG_USAGE)
    except OSError as error:
        stop(f"cannot write {out}: {error.strerror}", WRONG_USAGE)


@contextmanager
def opened(out: str | None, *, behind: int | None = None) -> Iterator[TextIO]:
    """stdout, or the file, whole rows of UTF-8. Ends with status 2 when it cannot be written, or another run writes it.

    To be opened after the model, so that a wrong --model does not empty the file of an earlier run. ``behind``: go on
    behind what the file holds, which are so many bytes; else it is emptied.
    """
    if out is None:
        yield sys.stdout
        return
    try:
        stream = RowFile(out, append=behind is not None)
        if behind is not None and os.path.getsize(out) != behind:
            stream.close()
            raise FileBusy(out)  # it was, since its rows were read
    except FileBusy as error:
        stop(str(error), WRONG_USAGE)
    except OSError as error:
        stop(f"cannot write {out}: {error.strerror}", WRONG_USAGE)
    with stream:
        yield cast(TextIO, stream)
    note(f"written: {out}")


def row_writer(kind: str, stream: TextIO, *, header: bool = True) -> RowWriter:
    """The writer of score rows in a format. ``header``: whether a csv gets one."""
    if kind == "jsonl":
        return JsonLines(stream)
    if kind == "csv":
        return Csv(stream, COLUMNS, flat, header=header)
    return TerminalTable(stream) if stream.isatty() else PlainTable(stream)
