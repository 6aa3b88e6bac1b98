"""From a rated dataset to training rows: every image is asked for its quality, and the answer is its level."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from qsit_plugin.evaluation.authentic import Columns
from qsit_plugin.evaluation.datasets import CUSTOM, DATASETS, Ratings, read_ratings
from qsit_plugin.evaluation.holdout import check_whole
from qsit_plugin.evaluation.locate import locate
from qsit_plugin.evaluation.ratings import DatasetError, RatedImage
from qsit_plugin.protocol import TRAINING_CONSISTENT, ScoreProfile

from .conversion import Conversion, Images, check_wording, range_text, rounded, score_messages
from .levels import LevelScale
from .problems import BAD_ROW, MISSING_IMAGE, OUT_OF_RANGE
from .rows import TrainingRow

TRAINING_SPLIT = "training"
NAMES = (*DATASETS, CUSTOM)


def convert_ratings(
    name: str,
    annotations: str | Path,
    images: Images,
    *,
    scale: LevelScale | None = None,
    split: str | None = None,
    columns: Columns | None = None,
    profile: ScoreProfile = TRAINING_CONSISTENT,
    partial: bool = False,
    holdout: float | None = None,
    without_twins: bool = False,
) -> Conversion:
    """A rated dataset as score rows, in the order of its annotation file.

    Args:
        name: a dataset that ``read_ratings`` knows, or "csv".
        scale: the cut into levels; by default that of the dataset's name.
        split: an official split, or "all"; by default the training split where the dataset has splits, else all.
        columns: which columns a csv has.
        profile: the wording; see ``check_wording``.
        partial: accept another number of images than the dataset has.
        holdout: this share of the training split is the split "validation" instead, by scene (``holdout.hold_out``).
        without_twins: leave out what has a near twin in another split, as training photos of BIQ2021 in its test split.

    Raises DatasetError for a file or folder that cannot be used as a whole, for a split of a csv that has images of one
    group on both sides, ValueError for a scale or profile.
    """
    if scale is None and name == CUSTOM:
        raise ValueError("a table of your own needs the range of its ratings, or the name of a level scale")
    scale = scale or LevelScale.named(name)
    check_wording(profile)
    bad: list[str] = []
    prefix, result = images.prefix, Conversion()
    ratings = read_ratings(name, annotations, split="all", columns=columns, partial=partial, bad=bad, holdout=holdout)
    for message in bad:
        result.problems.add(BAD_ROW, message)
    if name == CUSTOM:
        check_whole(ratings.rows)
    rows = _chosen(ratings, split)
    if without_twins:
        rows, result.twins = _alone(ratings, rows)
    source = name if name in DATASETS else Path(annotations).stem
    for row, path in zip(rows, _paths(images, rows, prefix), strict=True):
        if path is None:
            result.problems.add(MISSING_IMAGE, f"{row.image} is not in {images.folder}")
        elif not scale.is_possible(row.mos):
            result.problems.add(OUT_OF_RANGE, f"{row.image}: {row.mos} is not on the scale {range_text(scale)}")
        else:
            _add(result, row, path, source, scale, profile)
    return result


def _chosen(ratings: Ratings, split: str | None) -> list[RatedImage]:
    """The rows of the split. Test images must not slip into training because a file does not name the splits."""
    found = {row.split for row in ratings.rows if row.split}
    if split is None and not found and ratings.name in DATASETS and DATASETS[ratings.name].splits:
        raise DatasetError(
            f"{ratings.title} has official splits, but this file does not name them: take the file that does, or give "
            "--split all to train on the test images, too"
        )
    official = ratings.name not in DATASETS or DATASETS[ratings.name].official_splits
    wanted = split or (TRAINING_SPLIT if found and official else "all")
    if wanted != "all" and wanted not in found:
        raise DatasetError(
            f"{ratings.title} has no split {wanted!r} in this file: give one of {', '.join([*sorted(found), 'all'])}"
        )
    return [row for row in ratings.rows if wanted in ("all", row.split)]


def _alone(ratings: Ratings, rows: list[RatedImage]) -> tuple[list[RatedImage], int]:
    """The rows without near twins in another split, and how many others there were."""
    if not any(row.twins for row in ratings.rows):
        raise DatasetError(f"no near twins are known for {ratings.title}: only biq2021 has a list of them")
    kept = [row for row in rows if not row.twins]
    return kept, len(rows) - len(kept)


def _paths(images: Images, rows: Sequence[RatedImage], prefix: str) -> Iterator[str | None]:
    """Each row's path below the root; None for an image that is not there."""
    if not images.check:
        yield from (prefix + row.image for row in rows)
        return
    for file in locate(images.folder, rows):
        yield None if file is None else prefix + file.relative_to(images.folder).as_posix()


def _add(result: Conversion, row: RatedImage, path: str, source: str, scale: LevelScale, profile: ScoreProfile) -> None:
    level = scale.level(row.mos)
    if level is None:
        result.dropped += 1
        return
    try:
        converted = TrainingRow(
            id=f"{row.image}->{row.mos!r}",  # as in the published data, where the rating is kept nowhere else
            image=path,
            task="score",
            messages=score_messages(level, profile),
            mos=row.mos,
            level_probs=rounded(scale.soft(row.mos, row.sd, row.votes)),
            source=source,
            split=row.split,
        )
    except ValueError as error:  # a negative standard deviation, a path that leads out of the folder
        result.problems.add(BAD_ROW, f"{row.image}: {error}")
        return
    result.add(converted, level)
