"""From a rated dataset to training rows: every image is asked for its quality, and the answer is its level."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from qsit_plugin.evaluation.datasets.authentic import Columns
from qsit_plugin.evaluation.datasets.holdout import check_whole, hold_out
from qsit_plugin.evaluation.datasets.locate import locate, one_file
from qsit_plugin.evaluation.datasets.published import CUSTOM, DATASETS, read_ratings
from qsit_plugin.evaluation.datasets.ratings import DatasetError, RatedImage
from qsit_plugin.protocol import TRAINING_CONSISTENT, ScoreProfile

from ..levels import LevelScale
from . import own_table
from .checks import BAD_ROW, MISSING_IMAGE, OUT_OF_RANGE, OUTSIDE_ROOT
from .containers import is_container, stem
from .conversion import RATING, SOFT_LABELS, VOTES, Conversion, Images, check_split, range_text, rounded
from .formats import ROW_SCALES
from .rows import TrainingRow, check_wording, score_messages

TABLES = (CUSTOM, own_table.VOTES)
"""Ratings of the user's own, whose columns and range the user names."""
NAMES = (*DATASETS, *TABLES)


def convert_ratings(
    name: str,
    annotations: str | Path,
    images: Images,
    *,
    scale: LevelScale | None = None,
    soft: str = RATING,
    split: str | None = None,
    columns: Columns | None = None,
    rater: str | None = None,
    profile: ScoreProfile = TRAINING_CONSISTENT,
    partial: bool = False,
    holdout: float | None = None,
    without_twins: bool = False,
) -> Conversion:
    """A rated dataset as score rows, in the order of its annotation file.

    Args:
        name: a dataset that ``read_ratings`` knows; "csv": a table of the user's own, one row an image; "votes":
            one row a vote, see ``own_table.averaged``.
        annotations: the file as published; of the user's own also a container, whose embedded images are written to the
            image folder: see ``containers.read_any``.
        scale: the cut into levels; by default that of the dataset's name.
        soft: from what ``level_probs`` are made. "rating": from MOS and deviation, on the range that the words are cut
            from, so that their mean is the MOS. "votes": the shares of the votes, which only KonIQ-10k publishes. They
            lie on another ruler: their mean is .541 where KonIQ's ratings stand at .662 of the range, and the likeliest
            level is the word in a third of the rows only.
        split: an official split, or "all"; by default the training split where the dataset has splits, else all.
        columns: which columns a table of the user's own has; ``rater``: that of the raters among votes.
        profile: the wording; see ``check_wording``.
        partial: accept another number of images than the dataset has.
        holdout: this share of the training split is the split "validation" instead, by scene (``holdout.hold_out``).
        without_twins: leave out what has a near twin in another split, as training photos of BIQ2021 in its test split.

    Gives a ``ScaleWarning`` for a range that does not fit the ratings; it is in the result's ``warnings``, too.
    Raises DatasetError for a file or folder that cannot be used as a whole, for two rows that are one image, for votes
    of a dataset that has none, and for a split of a csv that has images of one group on both sides; ValueError for a
    scale or profile, and for another ``soft``.
    """
    if soft not in SOFT_LABELS:
        raise ValueError(f"soft labels are made from one of {', '.join(SOFT_LABELS)}, not from {soft!r}")
    if scale is None and name in TABLES:
        raise ValueError("a table of your own needs the range of its ratings, or the name of a level scale")
    scale = scale or LevelScale.named(name)
    check_wording(profile)
    result = Conversion()
    title = DATASETS[name].title if name in DATASETS else stem(annotations)
    if name == own_table.VOTES or (name == CUSTOM and is_container(annotations)):
        rows = own_table.own_rows(name, annotations, columns, rater, images.folder, result, scale)
        rows = rows if holdout is None else hold_out(rows, holdout)
    else:
        bad: list[str] = []
        found = read_ratings(name, annotations, split="all", columns=columns, partial=partial, bad=bad, holdout=holdout)
        rows = list(found.rows)
        result.problems.add(BAD_ROW, *bad)
    if name in TABLES:
        check_whole(rows)
    if without_twins and not any(row.twins for row in rows):
        raise DatasetError(f"no near twins are known for {title}: only biq2021 has a list of them")
    rows = _chosen(name, title, rows, split)
    if soft == VOTES and any(row.votes is None for row in rows):
        raise DatasetError(f"{title} has no vote shares for soft labels: only KonIQ-10k has; take {RATING!r}")
    if without_twins:
        result.twins = sum(bool(row.twins) for row in rows)
        rows = [row for row in rows if not row.twins]
    source = name if name in DATASETS else _own_source(annotations)
    for row, (path, fault) in zip(rows, _paths(images, rows), strict=True):
        result.rating(scale, row.mos)
        if path is None:
            cure = f"below {images.root}; give a folder that holds all images as --root"
            result.problems.add(
                fault, f"{row.image} is not {f'in {images.folder}' if fault == MISSING_IMAGE else cure}"
            )
        elif not scale.is_possible(row.mos):
            result.problems.add(OUT_OF_RANGE, f"{row.image}: {row.mos} is not on the scale {range_text(scale)}")
        elif (level := scale.level(row.mos)) is None:
            result.dropped += 1
        else:
            try:
                result.add(_row(row, path, level, source, scale, soft, profile), level, scale)
            except ValueError as error:  # a negative standard deviation, a path that leads out of the folder
                result.problems.add(BAD_ROW, f"{row.image}: {error}")
    result.check_scales(soft)
    return result


def _chosen(name: str, title: str, rows: list[RatedImage], split: str | None) -> list[RatedImage]:
    """The rows of the split. Test images must not slip into training because a file does not name the splits."""
    found, dataset = {row.split for row in rows if row.split}, DATASETS.get(name)
    if split is None and not found and dataset and dataset.splits:
        raise DatasetError(
            f"{title} has official splits, but this file does not name them: take the file that does, or give "
            "--split all to train on the test images, too"
        )
    wanted = split or ("training" if found and (dataset is None or dataset.official_splits) else "all")
    check_split(title, wanted, found)
    return [row for row in rows if wanted in ("all", row.split)]


def _own_source(table: str | Path) -> str:
    """The name of the user's table. One that is called as a published dataset must not get the range of that one."""
    name, whole = stem(table), Path(table).name
    return name if name not in ROW_SCALES else whole if whole != name else f"{name}-table"


def _paths(images: Images, rows: Sequence[RatedImage]) -> Iterator[tuple[str | None, str]]:
    """Each row's path below the root; or None, and the kind of problem."""
    if images.check:
        for file in locate(images.folder, rows):
            yield (None, MISSING_IMAGE) if file is None else (images.row_path(file), OUTSIDE_ROOT)
        return
    seen: dict[str, RatedImage] = {}
    for row in rows:
        path = images.unseen_path(row.image)
        if path is not None and seen.setdefault(path, row) is not row:
            raise one_file(seen[path], row, path)
        yield path, OUTSIDE_ROOT


def _row(
    row: RatedImage, path: str, level: str, source: str, scale: LevelScale, soft: str, profile: ScoreProfile
) -> TrainingRow:
    """Raises ValueError for a standard deviation that is negative or larger than ratings on the scale can have, and for
    a path that leads out of the folder."""
    low, high = scale.possible or (scale.low, scale.high)
    if row.sd is not None and row.sd > (high - low) / math.sqrt(2) * (1 + 1e-9):  # that of one vote at each end
        raise ValueError(f"a standard deviation of {row.sd:g} is impossible for ratings from {low:g} to {high:g}")
    name = path if Path(row.image).is_absolute() else row.image
    labels = scale.soft(row.mos, votes=row.votes) if soft == VOTES else scale.soft(row.mos, row.sd)
    return TrainingRow(
        id=f"{name}->{row.mos!r}",  # as in the published data, where the rating is kept nowhere else
        image=path,
        task="score",
        messages=score_messages(level, profile),
        mos=row.mos,
        level_probs=rounded(labels),
        source=source,
        split=row.split,
        quality=scale.score(row.mos),
        group=row.source if row.source != row.image else None,
    )
