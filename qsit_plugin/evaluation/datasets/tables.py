"""Tables with named columns, as csv or spreadsheet; lines of text; numbers that are checked as they are read."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from .ratings import DatasetError, RatedImage

Item = TypeVar("Item")

HEADER_WITHIN = 20
"""A spreadsheet's header is looked for in so many first rows: CSIQ's stands in the fourth, below a title."""


@dataclass(frozen=True)
class Record:
    """One row by column name, and where it stands, for messages.

    ``decimal_comma``: numbers may have one, as in the tables that spreadsheets write in many languages.
    """

    values: dict[str, Any]
    place: str
    decimal_comma: bool = False

    def has(self, column: str) -> bool:
        return bool(_stripped(self.values.get(column)))

    def text(self, column: str) -> str:
        """The cell as text; a spreadsheet's whole number without a decimal point."""
        value = self.values.get(column)
        if value is None or not str(value).strip():
            raise DatasetError(f"{self.place}: the column {column!r} is empty")
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        return str(value).strip()

    def texts(self) -> dict[str, str]:
        """All cells that are not empty, as text."""
        return {name: self.text(name) for name, value in self.values.items() if _stripped(value)}

    def number(self, column: str) -> float:
        """The cell as a finite number."""
        text = self.text(column)
        return as_number(text.replace(",", ".") if self.decimal_comma else text, f"{self.place}, column {column!r}")

    def number_if_any(self, column: str) -> float | None:
        """The cell as a finite number; None where it is empty, or holds what stands for that: see ``is_absent``."""
        return None if is_absent(_stripped(self.values.get(column))) else self.number(column)


def is_absent(text: str) -> bool:
    """Whether a cell is empty, or filled as programs fill one without a value: pandas NaN, R NA, databases NULL."""
    return text.strip().lower() in ("", "nan", "na", "n/a", "null", "none")


def as_number(text: str, place: str) -> float:
    """A finite number; DatasetError names the place otherwise."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        point = f"; write {text.replace(',', '.')}" if text.count(",") == 1 else ""
        raise DatasetError(f"{place}: {text!r} is not a finite number{point}")
    return value


def rated(items: Iterable[Item], parse: Callable[[Item], RatedImage], bad: list[str] | None) -> list[RatedImage]:
    """Every item as a row. The message of a malformed one goes into ``bad``; without that, DatasetError is raised with
    the first message and how many more there are."""
    rows: list[RatedImage] = []
    found: list[str] = []
    for item in items:
        try:
            rows.append(parse(item))
        except DatasetError as error:
            found.append(str(error))
    if bad is not None:
        bad += found
    elif len(found) == 1:
        raise DatasetError(found[0])
    elif found:
        raise DatasetError(f"{found[0]} (the first of {len(found):,} malformed rows of {len(rows) + len(found):,})")
    return rows


def read_table(path: Path, required: Sequence[str], once: Sequence[str] = ()) -> list[Record]:
    """The rows of a csv or xlsx file that has the required columns.

    A csv's columns are separated by what its first line has most of: commas, semicolons (numbers may then have a
    decimal comma) or tabs. Raises DatasetError for a missing column, naming those that are there, and for a row with
    more cells than the header, as a decimal comma would make one, for a column that is required or in ``once`` and
    stands twice, and for a quote that is not closed; other columns that stand twice are left out. ModuleNotFoundError
    where openpyxl is needed and missing.
    """
    sheet = path.suffix.lower() in (".xlsx", ".xlsm")
    separator = "" if sheet else _separator(path)
    rows = _sheet_rows(path, required) if sheet else _csv_rows(path, separator)
    header = [_stripped(cell) for cell in next(rows, ("", []))[1]]
    absent = [name for name in required if name not in header]
    if absent:
        held = ", ".join(repr(name) for name in header[:15] if name) or "nothing"
        raise DatasetError(f"{path} has no column {', '.join(map(repr, absent))}; its header holds {held}")
    unclear = {name for name in header if header.count(name) > 1}
    if twice := sorted(unclear & {*required, *once}):
        raise DatasetError(f"{path} has several columns called {', '.join(map(repr, twice))}: rename all but one")
    records = []
    for place, cells in rows:
        if any(_stripped(cell) for cell in cells[len(header) :]):
            raise DatasetError(
                f"{place} has {len(cells)} cells, the header {len(header)}: put a text or a number that holds the "
                "separator between quotes, and write numbers with a point"
            )
        if any(_stripped(cell) for cell in cells):
            values = {name: cell for name, cell in zip(header, cells, strict=False) if name not in ("", *unclear)}
            records.append(Record(values, place, decimal_comma=separator == ";"))
    return records


def _stripped(cell: Any) -> str:
    return "" if cell is None else str(cell).strip()


def _separator(path: Path) -> str:
    with open(path, encoding="utf-8-sig") as stream:
        header = stream.readline()
    return max(",;\t", key=header.count)  # the comma where there is none of them


def _csv_rows(path: Path, separator: str) -> Iterator[tuple[str, list[Any]]]:
    with open(path, encoding="utf-8-sig", newline="") as stream:
        reader = csv.reader(stream, delimiter=separator, strict=True)
        try:
            for cells in reader:
                yield f"{path.name}, line {reader.line_num}", cells
        except csv.Error as error:
            raise DatasetError(
                f"{path}, line {reader.line_num}: {error}; is a quote not closed? Every row from there on would be "
                "lost: close it, or take it out"
            ) from error


def _sheet_rows(path: Path, required: Sequence[str]) -> Iterator[tuple[str, list[Any]]]:
    """The rows of the first sheet that holds the required columns, from its header on; else those of the first."""
    try:
        from openpyxl import load_workbook
        from openpyxl.utils.exceptions import InvalidFileException
    except ModuleNotFoundError as error:
        raise _needs_bench(error) from None
    from zipfile import BadZipFile

    try:
        book = load_workbook(path, read_only=True, data_only=True)
    except (BadZipFile, InvalidFileException, KeyError) as error:
        raise DatasetError(f"{path} is not a readable spreadsheet: {error}") from None
    try:
        for sheet in book.worksheets:
            for number, cells in enumerate(sheet.iter_rows(max_row=HEADER_WITHIN, values_only=True), 1):
                if set(required) <= {str(cell).strip() for cell in cells if cell is not None}:
                    yield from _placed(path, sheet.iter_rows(min_row=number, values_only=True), number)
                    return
        yield from _placed(path, book.worksheets[0].iter_rows(max_row=1, values_only=True), 1)
    finally:
        book.close()


def _placed(path: Path, rows: Iterable[Sequence[Any]], first: int) -> Iterator[tuple[str, list[Any]]]:
    for number, cells in enumerate(rows, first):
        yield f"{path.name}, row {number}", list(cells)


def read_lines(path: Path, separator: str | None = None) -> list[tuple[str, list[str]]]:
    """``[(place, fields)]`` of the lines that are not empty; the separator is white space by default."""
    lines = re.split(r"\r\n|\n|\r", path.read_text(encoding="utf-8-sig"))  # splitlines would cut at U+2028, too
    return [
        (f"{path.name}, line {number}", line.split(separator)) for number, line in enumerate(lines, 1) if line.strip()
    ]


def _needs_bench(error: ModuleNotFoundError) -> ModuleNotFoundError:
    return ModuleNotFoundError(
        f'{error.name} is needed for this file and not installed: pip install "qsit-plugin[bench]"', name=error.name
    )


def load_mat(path: Path, name: str) -> Any:
    """One variable of a MATLAB file. Raises DatasetError where it is not there."""
    try:
        from scipy.io import loadmat
    except ModuleNotFoundError as error:
        raise _needs_bench(error) from None
    try:
        content = loadmat(path)
    except (ValueError, NotImplementedError) as error:
        raise DatasetError(f"{path} is not a readable MATLAB file: {error}") from None
    if name not in content:
        held = ", ".join(key for key in content if not key.startswith("__"))
        raise DatasetError(f"{path} holds no variable {name!r}, only {held}")
    return content[name]
