"""Ratings of the user's own that are not one csv or spreadsheet: tables in containers, and raw votes, one a row.

Votes are averaged as they are: no rater is brought to the others' scale, weighted, or left out.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from qsit_plugin.evaluation.datasets.authentic import Columns, rated_row
from qsit_plugin.evaluation.datasets.published import check_unique
from qsit_plugin.evaluation.datasets.ratings import DatasetError, RatedImage
from qsit_plugin.evaluation.datasets.tables import Record, rated, read_table

from ..levels import LevelScale
from .checks import BAD_ROW, OUT_OF_RANGE, Problems
from .containers import IMAGE_KEYS, SPLIT, is_container, read_any, stem
from .conversion import Conversion, range_text

VOTES, RATING, RATER = "votes", "rating", "rater"
"""The name of this form in ``qsit train convert``, and of its columns by default; that of the raters may be missing."""


def own_rows(
    name: str,
    file: str | Path,
    columns: Columns | None,
    rater: str | None,
    folder: Path,
    to: Conversion,
    at: LevelScale,
) -> list[RatedImage]:
    """The images of a table, or of votes (``name`` "votes").

    ``rater``, ``at``: the column and the scale of ``averaged``. ``folder``: where embedded images are written. ``to``:
    takes malformed rows and notes. Raises DatasetError for a missing column, and for an image that is listed twice.
    """
    columns = columns or Columns(mos=RATING if name == VOTES else Columns.mos)
    records = _records(file, columns, folder, to.problems)
    columns = replace(columns, split=columns.split or SPLIT)  # without a column, the split of the container
    if name == VOTES:
        rows, note = averaged(records, columns, rater, at, to.problems)
        to.notes.append(note)
    else:
        bad: list[str] = []
        rows = rated(records, partial(rated_row, columns=columns), bad)
        to.problems.add(BAD_ROW, *bad)
        check_unique(str(file), rows)
    return rows


def _records(file: str | Path, columns: Columns, folder: Path, problems: Problems) -> list[Record]:
    """The rows of a csv, a spreadsheet or a container that has the columns."""
    required = [name for name in (columns.image, columns.mos, columns.split, columns.group, columns.sd) if name]
    if not is_container(file):
        if not Path(file).is_file():
            raise DatasetError(f"{file}: no such file")
        return read_table(Path(file), required)
    found = read_any(file, folder, problems, (columns.image, *IMAGE_KEYS))
    held = dict.fromkeys(name for values in found for name in values if name != SPLIT)
    if found and (absent := [name for name in required if name not in held]):
        raise DatasetError(
            f"{file} has no column {', '.join(map(repr, absent))}; it holds {', '.join(map(repr, held))}"
        )
    records = []
    for position, values in enumerate(found):
        record, path = Record(values, f"{stem(file)}, row {position}"), values.get(columns.image)
        if isinstance(path, str | int | float):
            records.append(record)
        else:
            problems.add(BAD_ROW, f"{record.place}: the column {columns.image!r} holds no path, but {path!r:.60}")
    return records


def averaged(
    records: Sequence[Record], columns: Columns, rater: str | None, scale: LevelScale, problems: Problems
) -> tuple[list[RatedImage], str]:
    """The images in the order of their first votes, and a note on the votes.

    Args:
        columns: ``mos`` names that of the ratings; split and group must be the same in all rows of an image.
        rater: the column of the raters; by default "rater" where there is one.
        problems: takes a malformed vote, one that is not on the scale, and a rater's second vote on an image.

    ``sd`` is that of a sample (n - 1), None for an image with one vote. Raises DatasetError for a column that is
    missing.
    """
    has_rater = any(record.has(rater or RATER) for record in records)
    if rater and not has_rater:
        raise DatasetError(f"the votes have no column {rater!r} for --rater-column")
    votes: dict[str, dict[str, float]] = {}
    firsts: dict[str, RatedImage] = {}
    for position, record in enumerate(records):
        try:
            vote = rated_row(record, columns)
            who = record.text(rater or RATER) if has_rater else str(position)
            first = firsts.setdefault(vote.image, vote)
            if (first.split, first.source) != (vote.split, vote.source):
                raise DatasetError(f"{record.place}: {vote.image} has another split or group in an earlier row")
            if who in votes.get(vote.image, {}):
                raise DatasetError(f"{record.place}: {who} has rated {vote.image} in an earlier row")
        except DatasetError as error:
            problems.add(BAD_ROW, str(error))
            continue
        if scale.is_possible(vote.mos):
            votes.setdefault(vote.image, {})[who] = vote.mos
        else:
            problems.add(OUT_OF_RANGE, f"{record.place}: {vote.mos:g} is not on the scale {range_text(scale)}")
    rows = [_mean(firsts[image], list(given.values()), columns) for image, given in votes.items()]
    return rows, _summary(votes, has_rater)


def _mean(first: RatedImage, votes: Sequence[float], columns: Columns) -> RatedImage:
    mos = statistics.fmean(votes)
    sd = statistics.stdev(votes) if len(votes) > 1 else None
    quality = -mos if columns.lower_is_better else mos
    return replace(first, mos=mos, quality=quality, sd=sd, columns={"raters": str(len(votes))})


def _summary(votes: dict[str, dict[str, float]], has_rater: bool) -> str:
    counts = [len(given) for given in votes.values()] or [0]
    raters = len({who for given in votes.values() for who in given})
    single = counts.count(1)
    return (
        f"{sum(counts):,} votes{f' of {raters:,} raters' if has_rater else ''} on {len(votes):,} images, {min(counts)} "
        f"to {max(counts)} an image, averaged as they are: no rater is corrected or left out"
        + (f"; {single:,} images have one vote, hence no deviation" if single else "")
    )
