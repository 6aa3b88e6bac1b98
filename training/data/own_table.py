"""Ratings of one's own that are not one csv or spreadsheet: tables in containers, with their images or without."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from qsit_plugin.evaluation.datasets.authentic import Columns
from qsit_plugin.evaluation.datasets.holdout import hold_out
from qsit_plugin.evaluation.datasets.published import CUSTOM, Ratings
from qsit_plugin.evaluation.datasets.ratings import DatasetError, RatedImage
from qsit_plugin.evaluation.datasets.tables import Record, read_table

from .containers import IMAGE_KEYS, SPLIT, is_container, read_any, stem
from .problems import BAD_ROW, Problems


def read_columns_of(file: str | Path, columns: Columns, folder: Path, problems: Problems) -> list[Record]:
    """The rows of a csv, a spreadsheet or a container that has the columns. Raises DatasetError where one is missing.

    ``folder``: where embedded images are written.
    """
    required = [name for name in (columns.image, columns.mos, columns.split, columns.group, columns.sd) if name]
    if not is_container(file):
        if not Path(file).is_file():
            raise DatasetError(f"{file}: no such file")
        return read_table(Path(file), required)
    records = read_any(file, folder, problems, (columns.image, *IMAGE_KEYS))
    held = dict.fromkeys(name for record in records for name in record if name != SPLIT)
    if records and (absent := [name for name in required if name not in held]):
        raise DatasetError(
            f"{file} has no column {', '.join(map(repr, absent))}; it holds {', '.join(map(repr, held))}"
        )
    return [Record(record, f"{stem(file)}, row {position}") for position, record in enumerate(records)]


def split_of(record: Record, columns: Columns) -> str | None:
    """The split in its column; without one, that of the container."""
    name = columns.split or SPLIT
    return record.text(name) if record.has(name) else None


def image_of(record: Record, columns: Columns) -> str:
    """The path in the column of images. Raises DatasetError for anything else."""
    if not isinstance(path := record.values.get(columns.image), str | int | float):
        raise DatasetError(f"{record.place}: the column {columns.image!r} holds no path, but {path!r:.60}")
    return record.text(columns.image)


def rated_images(records: Sequence[Record], columns: Columns, problems: Problems) -> Iterator[RatedImage]:
    """One rated image a row; what is wrong with the others goes into ``problems``."""
    for record in records:
        try:
            mos = record.number(columns.mos)
            yield RatedImage(
                image_of(record, columns),
                mos,
                -mos if columns.lower_is_better else mos,
                record.number_if_any(columns.sd) if columns.sd else None,
                split=split_of(record, columns),
                source=record.text(columns.group) if columns.group and record.has(columns.group) else "",
            )
        except DatasetError as error:
            problems.add(BAD_ROW, str(error))


def own_ratings(file: str | Path, rows: list[RatedImage], holdout: float | None) -> Ratings:
    """The rows as ``read_ratings`` gives those of a csv. Raises DatasetError for an image that is listed twice."""
    twice = [image for image, count in Counter(row.image for row in rows).items() if count > 1]
    if twice:
        raise DatasetError(f"{file} lists {len(twice)} images more than once, the first is {twice[0]}")
    rows = rows if holdout is None else hold_out(rows, holdout)
    return Ratings(CUSTOM, stem(file), "", tuple(rows), "all", None, fingerprint="")
