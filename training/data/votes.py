"""Raw votes, one a row, as rated images: mean, standard deviation and number of the ratings of each image.

They are averaged as they are: no rater is brought to the others' scale, weighted, or left out.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from qsit_plugin.evaluation.datasets.authentic import Columns
from qsit_plugin.evaluation.datasets.ratings import DatasetError, RatedImage
from qsit_plugin.evaluation.datasets.tables import Record

from ..levels import LevelScale
from .conversion import range_text
from .own_table import image_of, split_of
from .problems import BAD_ROW, OUT_OF_RANGE, Problems

NAME, RATING, RATER = "votes", "rating", "rater"
"""Of this form in ``qsit train convert``, and of its columns by default; that of the raters may be missing then."""


def averaged(
    records: Sequence[Record], columns: Columns, rater: str | None, scale: LevelScale, problems: Problems
) -> tuple[list[RatedImage], str]:
    """The images in the order of their first votes, and what is said of the votes.

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
    about: dict[str, tuple[str | None, str]] = {}
    for position, record in enumerate(records):
        try:
            image, vote = image_of(record, columns), record.number(columns.mos)
            who = record.text(rater or RATER) if has_rater else str(position)
            group = record.text(columns.group) if columns.group and record.has(columns.group) else ""
            place = (split_of(record, columns), group)
            if about.setdefault(image, place) != place:
                raise DatasetError(f"{record.place}: {image} has another split or group in an earlier row")
            if who in votes.get(image, {}):
                raise DatasetError(f"{record.place}: {who} has rated {image} in an earlier row")
        except DatasetError as error:
            problems.add(BAD_ROW, str(error))
            continue
        if scale.is_possible(vote):
            votes.setdefault(image, {})[who] = vote
        else:
            problems.add(OUT_OF_RANGE, f"{record.place}: {vote:g} is not on the scale {range_text(scale)}")
    rows = [_rated(image, list(given.values()), *about[image], columns) for image, given in votes.items()]
    return rows, _summary(votes, has_rater)


def _rated(image: str, votes: list[float], split: str | None, group: str, columns: Columns) -> RatedImage:
    mos = statistics.fmean(votes)
    sd = statistics.stdev(votes) if len(votes) > 1 else None
    quality = -mos if columns.lower_is_better else mos
    return RatedImage(image, mos, quality, sd, split=split, source=group, columns={"raters": str(len(votes))})


def _summary(votes: dict[str, dict[str, float]], has_rater: bool) -> str:
    counts = [len(given) for given in votes.values()] or [0]
    raters = len({who for given in votes.values() for who in given})
    single = counts.count(1)
    return (
        f"{sum(counts):,} votes{f' of {raters:,} raters' if has_rater else ''} on {len(votes):,} images, {min(counts)} "
        f"to {max(counts)} an image, averaged as they are: no rater is corrected or left out"
        + (f"; {single:,} images have one vote, hence no deviation" if single else "")
    )
