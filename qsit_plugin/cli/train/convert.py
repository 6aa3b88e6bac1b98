"""``qsit train convert``: ratings and conversations, in the forms that others publish, as training rows."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .. import options
from ..failures import SOME_FAILED, WRONG_USAGE, ending, note, report, stop
from .reporting import say

if TYPE_CHECKING:
    from qsit_plugin.training.data.conversion import Conversion, Images
    from qsit_plugin.training.levels import LevelScale

_TABLE = "Your own table (csv, votes)"


def convert(
    name: Annotated[
        str,
        typer.Argument(
            help="Rated images: koniq, spaq, kadid10k, livec, biq2021, agiqa3k, csiq, tid2013, csv for a table of "
            "yours, or votes for one with a row a vote. Conversations: qsit (Q-SiT's own JSON), qalign, deqa, "
            "q_instruct, llava, swift (ms-swift), or jsonl (written by this command)."
        ),
    ],
    file: Annotated[
        str,
        typer.Argument(
            help="The annotation or JSON file, as published. For csv, votes and conversations also .parquet, .tar "
            "(WebDataset), a folder of these or of save_to_disk, or hf:owner/name."
        ),
    ],
    images: Annotated[
        str, typer.Option(metavar="FOLDER", help="Where the images are; those embedded in FILE are written there.")
    ],
    out: Annotated[
        str,
        typer.Option(
            "--out", "-o", metavar="FILE", help=".jsonl: rows to train on. .json: LLaVA's form, as published."
        ),
    ],
    root: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER",
            help="Image paths in the rows are relative to this folder; by default, for rated images the one that "
            "--images is in (paths such as koniq/1.jpg), for conversations --images itself.",
        ),
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="An official split, or all; by default training where there is one, else all.")
    ] = None,
    holdout: options.Holdout = None,
    without_twins: Annotated[
        bool, typer.Option("--without-twins", help="Leave out images that have a near twin in another split (biq2021).")
    ] = False,
    scale: Annotated[
        str | None, typer.Option(help="Cut into levels as another dataset is: its name, or live for DMOS 0-100.")
    ] = None,
    range: Annotated[
        tuple[float, float] | None,
        typer.Option(
            metavar="LOW HIGH", help="Of the ratings, which is cut into levels; for a published dataset over its own."
        ),
    ] = None,
    soft_labels: Annotated[
        str,
        typer.Option(
            metavar="rating|votes",
            help="rating: from MOS and deviation, on the range of the ratings. votes: the shares of KonIQ's votes, "
            "which are on another ruler than words and MOS.",
        ),
    ] = "rating",
    lower_is_better: Annotated[bool, typer.Option("--lower-is-better", rich_help_panel=_TABLE)] = False,
    image_column: Annotated[str, typer.Option(rich_help_panel=_TABLE)] = "image",
    mos_column: Annotated[
        str | None, typer.Option(rich_help_panel=_TABLE, help="Of the ratings; by default mos, and rating for votes.")
    ] = None,
    sd_column: Annotated[
        str | None, typer.Option(rich_help_panel=_TABLE, help="Standard deviation of the ratings.")
    ] = None,
    rater_column: Annotated[
        str | None,
        typer.Option(rich_help_panel=_TABLE, help="Who gave a vote; by default rater, where there is one (votes)."),
    ] = None,
    split_column: Annotated[str | None, typer.Option(rich_help_panel=_TABLE)] = None,
    group_column: Annotated[
        str | None, typer.Option(rich_help_panel=_TABLE, help="The photo or scene of an image: no split may part it.")
    ] = None,
    profile: Annotated[
        str, typer.Option(help="How ratings are worded: a profile's name or file; as Q-SiT's training data by default.")
    ] = "training",
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave out what is wrong, and write the rest.")] = False,
    partial: Annotated[bool, typer.Option("--partial", help="Go on with a dataset that is not complete.")] = False,
    unchecked: Annotated[bool, typer.Option("--unchecked", help="Do not look whether the images are there.")] = False,
) -> None:
    """Turn a dataset into training rows, one JSON object a line.

    Missing images, malformed rows, ratings out of range, and texts with another level than the rating are counted
    and the first five of each listed; then nothing is written, unless --skip-bad is given. A range that does not fit
    the ratings is warned of.
    """
    from qsit_plugin.evaluation.datasets.authentic import Columns
    from qsit_plugin.training.data.rows import write_rows

    from ..output import check_target

    check_target(out, [Path(file)])
    if Path(out).suffix.lower() not in (".jsonl", ".json"):
        stop(f"--out {out!r} must end in .jsonl (rows to train on) or .json (LLaVA's form)", WRONG_USAGE)
    given = (image_column != "image", mos_column, sd_column, rater_column, split_column, group_column)
    mos = mos_column or ("rating" if name == "votes" else "mos")
    columns = Columns(image_column, mos, split_column, group_column, lower_is_better=lower_is_better, sd=sd_column)
    asked = _Asked(name, file, split, holdout, without_twins, range, soft_labels, partial, columns, rater_column)
    _check(asked, own_columns=any(given))
    with ending(WRONG_USAGE, ModuleNotFoundError, ValueError):
        chosen = _scale(name, scale, range, lower_is_better)
        place = _place(name, images, root, not unchecked)
        result = _converted(asked, place, chosen, profile)
    for line in result.warnings:
        report(line)
    _report_problems(result, skip_bad)
    if not result.rows:
        stop("no row is left, nothing is written", SOME_FAILED)
    write_rows(out, result.rows)
    _report_result(result, place, out, soft_labels)


@dataclass(frozen=True)
class _Asked:
    """What is converted, by the options of the command."""

    name: str
    file: str
    split: str | None
    holdout: float | None
    without_twins: bool
    range: tuple[float, float] | None
    soft_labels: str
    partial: bool
    columns: Any
    rater: str | None


def _check(asked: _Asked, own_columns: bool) -> None:
    """Stop where an option does not apply to this name."""
    from qsit_plugin.training.data import conversations
    from qsit_plugin.training.data import ratings as rated
    from qsit_plugin.training.data.containers import is_container
    from qsit_plugin.training.data.conversion import RATING, SOFT_LABELS

    name, soft, known = asked.name, asked.soft_labels, (*rated.NAMES, *conversations.NAMES)
    if name not in known:
        stop(f"nothing is called {name!r} here: give one of {', '.join(known)}", WRONG_USAGE)
    form = conversations.FORMATS.get(name)
    ranged = form is not None and form.ranged
    falling = asked.columns.lower_is_better and name not in rated.TABLES
    whole = asked.partial or (asked.split is not None and not is_container(asked.file))
    refusals = (
        (own_columns and name not in rated.TABLES,
         f"the form of {name} is known; the options for columns need csv as the name, or votes"),
        (asked.rater and name != "votes", "--rater-column is for votes: leave it out"),
        (name == "votes" and asked.columns.sd, "votes have no column of deviations: leave --sd-column out"),
        (falling and not (asked.range and ranged),
         f"the direction of {name} is known; --lower-is-better is for csv, and with --range for qsit, qalign, deqa and "
         "jsonl (and for votes)"),
        (whole and form is not None, f"{name} has no splits and no known size: leave --split and --partial out"),
        (asked.range and form is not None and not ranged, f"{name} has no ratings: leave --range out"),
        (soft not in SOFT_LABELS, f"--soft-labels must be one of {', '.join(SOFT_LABELS)}, not {soft!r}"),
        (soft != RATING and form is not None, f"{name} holds no votes: leave --soft-labels out"),
        ((asked.holdout is not None or asked.without_twins) and form is not None,
         f"{name} has no splits: leave --holdout and --without-twins out"),
    )  # fmt: skip
    for refused, message in refusals:
        if refused:
            stop(message, WRONG_USAGE)


def _scale(name: str, scale: str | None, range: tuple[float, float] | None, lower_is_better: bool) -> LevelScale | None:
    from qsit_plugin.evaluation.datasets.published import DATASETS
    from qsit_plugin.training.levels import LevelScale

    if scale is not None and (range is not None or lower_is_better):
        stop("--scale has its range and direction: give either it, or --range with --lower-is-better", WRONG_USAGE)
    if range is not None:
        falling = DATASETS[name].lower_is_better if name in DATASETS else lower_is_better
        return LevelScale.custom(*range, lower_is_better=falling)
    return None if scale is None else LevelScale.named(scale)


def _place(name: str, images: str, root: str | None, check: bool) -> Images:
    """Raises DatasetError where the images are not inside the root."""
    from qsit_plugin.training.data import ratings as rated
    from qsit_plugin.training.data.conversion import Images

    beside = Path(images).absolute().parent if name in rated.NAMES else Path(images)
    return Images(Path(images), beside if root is None else Path(root), check=check)


def _converted(asked: _Asked, place: Images, scale: LevelScale | None, profile: str) -> Conversion:
    """Raises ValueError and ModuleNotFoundError as the two conversions do."""
    from qsit_plugin.protocol import profile_for
    from qsit_plugin.training.data import conversations
    from qsit_plugin.training.data import ratings as rated
    from qsit_plugin.training.data.conversion import ScaleWarning

    common: dict[str, Any] = {"scale": scale, "profile": profile_for(".", profile), "split": asked.split}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ScaleWarning)  # the command prints them, one line each
        if asked.name in conversations.FORMATS:
            return conversations.convert_conversations(asked.name, asked.file, place, **common)
        return rated.convert_ratings(
            asked.name,
            asked.file,
            place,
            soft=asked.soft_labels,
            columns=asked.columns,
            rater=asked.rater,
            partial=asked.partial,
            holdout=asked.holdout,
            without_twins=asked.without_twins,
            **common,
        )


def _report_problems(result: Conversion, skip_bad: bool) -> None:
    """Report what is wrong, and stop here unless it is to be skipped."""
    if not result.problems:
        return
    for line in result.problems.lines():
        say(line)
    count = f"{result.problems.total():,} rows"
    if not skip_bad:
        stop(f"{count} are not usable, nothing is written: fix them, or give --skip-bad to leave them out", SOME_FAILED)
    report(f"{count} are left out")


def _report_result(result: Conversion, images: Images, out: str, soft: str) -> None:
    from qsit_plugin.training.data.checks import histogram
    from qsit_plugin.training.data.conversion import VOTES

    for line in result.notes:
        note(line)
    if result.twins:
        note(f"{result.twins:,} images with a near twin in another split are left out")
    if result.dropped:
        note(
            f"{result.dropped:,} images outside the range that is cut into levels are dropped, as in the published data"
        )
    if result.levels:
        note(histogram(result.levels))
    if Path(out).suffix.lower() == ".jsonl":  # LLaVA's form has no soft labels
        kind = "shares of votes as soft labels, on another ruler than the words" if soft == VOTES else "soft labels"
        for scale, error in result.label_errors().items():
            note(f"{kind} ({scale.name}): {error}")
    if not images.check:
        note("whether the images are there was not looked at")
    note(f"{len(result.rows):,} rows written: {out}; image paths are relative to {images.root}")
