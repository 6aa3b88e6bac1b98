"""``qsit train``: from downloaded datasets to training rows, what a mixture of them amounts to, and fine-tuning."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .. import options
from ..failures import SOME_FAILED, WRONG_USAGE, ending, note, report, stop
from . import balance
from .endings import ends_in_words, say, what_a_run_has_saved
from .evaluate import evaluate

if TYPE_CHECKING:
    from qsit_plugin.training.data.conversion import Conversion, Images
    from qsit_plugin.training.levels import LevelScale

app = typer.Typer(no_args_is_help=True, help="Fine-tune a model, and prepare the data for it.")

_TABLE = "A table of your own (csv)"


@app.command()
def convert(
    name: Annotated[
        str,
        typer.Argument(
            help="Rated images: koniq, spaq, kadid10k, livec, biq2021, agiqa3k, csiq, tid2013, or csv for a table of "
            "yours. "
            "Conversations: qsit (Q-SiT's own JSON), q_instruct, llava, or jsonl (written by this command)."
        ),
    ],
    file: Annotated[str, typer.Argument(help="The annotation or JSON file, as published.")],
    images: Annotated[str, typer.Option(metavar="FOLDER", help="Where the images are.")],
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
    mos_column: Annotated[str, typer.Option(rich_help_panel=_TABLE)] = "mos",
    sd_column: Annotated[
        str | None, typer.Option(rich_help_panel=_TABLE, help="Standard deviation of the ratings.")
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

    Missing images, malformed rows, ratings out of range, and texts that say another level than the rating are counted
    and the first five of each listed; then nothing is written, unless --skip-bad is given. A range that does not fit
    the ratings is warned of.
    """
    import warnings

    from qsit_plugin.evaluation.datasets.authentic import Columns
    from qsit_plugin.protocol import profile_for
    from qsit_plugin.training.data import conversations
    from qsit_plugin.training.data import ratings as rated
    from qsit_plugin.training.data.conversion import Images, ScaleWarning
    from qsit_plugin.training.data.rows import write_rows

    from ..output import check_target

    check_target(out, [Path(file)])
    if Path(out).suffix.lower() not in (".jsonl", ".json"):
        stop(f"--out {out!r} must end in .jsonl (rows to train on) or .json (LLaVA's form)", WRONG_USAGE)
    columns = Columns(
        image_column, mos_column, split_column, group_column, sd=sd_column, lower_is_better=lower_is_better
    )
    own_columns = columns != Columns(lower_is_better=lower_is_better)
    _check_options(name, own_columns, split is not None or partial, range is not None, lower_is_better, soft_labels)
    if (holdout is not None or without_twins) and name in conversations.NAMES:
        stop(f"{name} has no splits: leave --holdout and --without-twins out", WRONG_USAGE)
    wording = profile_for(".", profile)
    with ending(WRONG_USAGE, ModuleNotFoundError, ValueError):
        chosen = _scale(name, scale, range, lower_is_better)
        beside = Path(images).absolute().parent if name in rated.NAMES else Path(images)
        place = Images(Path(images), beside if root is None else Path(root), check=not unchecked)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ScaleWarning)  # said below, in one line each
            if name in rated.NAMES:
                result = rated.convert_ratings(
                    name,
                    file,
                    place,
                    scale=chosen,
                    soft=soft_labels,
                    split=split,
                    columns=columns,
                    profile=wording,
                    partial=partial,
                    holdout=holdout,
                    without_twins=without_twins,
                )
            else:
                result = conversations.convert_conversations(name, file, place, scale=chosen, profile=wording)
    for line in result.warnings:
        report(line)
    _tell_problems(result, skip_bad)
    if not result.rows:
        stop("no row is left, nothing is written", SOME_FAILED)
    write_rows(out, result.rows)
    _tell_result(result, place, out, soft_labels)


def _check_options(name: str, table: bool, dataset: bool, range: bool, lower_is_better: bool, soft: str) -> None:
    from qsit_plugin.training.data import conversations
    from qsit_plugin.training.data import ratings as rated
    from qsit_plugin.training.data.conversion import RATING, SOFT_LABELS

    if name not in (*rated.NAMES, *conversations.NAMES):
        known = ", ".join((*rated.NAMES, *conversations.NAMES))
        stop(f"nothing is called {name!r} here: give one of {known}", WRONG_USAGE)
    if table and name != "csv":
        stop(f"the form of {name} is known; the options for columns need csv as the name", WRONG_USAGE)
    if lower_is_better and name != "csv" and not (range and name in (conversations.QSIT, conversations.ROWS)):
        stop(
            f"the direction of {name} is known; --lower-is-better is for csv, and with --range for qsit and jsonl",
            WRONG_USAGE,
        )
    if dataset and name in conversations.NAMES:
        stop(f"{name} has no splits and no known size: leave --split and --partial out", WRONG_USAGE)
    if range and name in (conversations.Q_INSTRUCT, conversations.LLAVA):
        stop(f"{name} has no ratings: leave --range out", WRONG_USAGE)
    if soft not in SOFT_LABELS:
        stop(f"--soft-labels must be one of {', '.join(SOFT_LABELS)}, not {soft!r}", WRONG_USAGE)
    if soft != RATING and name in conversations.NAMES:
        stop(f"{name} holds no votes: leave --soft-labels out", WRONG_USAGE)


def _scale(name: str, scale: str | None, range: tuple[float, float] | None, lower_is_better: bool) -> LevelScale | None:
    from qsit_plugin.evaluation.datasets.published import DATASETS
    from qsit_plugin.training.levels import LevelScale

    if scale is not None and (range is not None or lower_is_better):
        stop("--scale has its range and direction: give either it, or --range with --lower-is-better", WRONG_USAGE)
    if range is not None:
        falling = DATASETS[name].lower_is_better if name in DATASETS else lower_is_better
        return LevelScale.custom(*range, lower_is_better=falling)
    return None if scale is None else LevelScale.named(scale)


def _tell_problems(result: Conversion, skip_bad: bool) -> None:
    """Say what is wrong, and end here unless it is to be skipped."""
    if not result.problems:
        return
    for line in result.problems.lines():
        say(line)
    count = f"{result.problems.total():,} rows"
    if not skip_bad:
        stop(
            f"{count} are not usable, nothing is written: mend them, or give --skip-bad to leave them out", SOME_FAILED
        )
    report(f"{count} are left out")


def _tell_result(result: Conversion, images: Images, out: str, soft: str) -> None:
    from qsit_plugin.training.data.conversion import VOTES
    from qsit_plugin.training.data.range_fit import histogram

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


@app.command()
def plan(
    mixture: Annotated[str, typer.Argument(help="YAML of datasets, json_path and sampling_strategy each; or rows.")],
    out: Annotated[
        str | None, typer.Option("--out", "-o", metavar="FILE.json", help="By default beside the YAML, as .plan.json.")
    ] = None,
    folder: Annotated[
        str | None,
        typer.Option(metavar="FOLDER", help="Look here, by name, for files that are not at their json_path."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of random choices.")] = 0,
    rows: Annotated[int | None, typer.Option(min=1, help="Rows an epoch; by default all that are chosen.")] = None,
    world_size: Annotated[int, typer.Option(min=1, help="Ranks; the rows are rounded up to a multiple.")] = 1,
) -> None:
    """Print and save what a mixture amounts to: rows, shares and hashes of each source.

    Reads the YAML of the published data mix as it is: all, first:N, end:N, random:N, percentages such as random:22%.
    Which rows random takes depends on the seed and the file's name. A file of rows is a mixture of all its rows.
    """
    import json

    from qsit_plugin.training.data.mixture import MixtureError, read_data
    from qsit_plugin.training.data.plan import plan_lines, plan_of

    from ..output import check_target

    target = Path(mixture).with_suffix(".plan.json") if out is None else Path(out)
    with ending(WRONG_USAGE, MixtureError, ModuleNotFoundError):
        found = read_data(mixture, seed=seed, folder=folder)
        check_target(str(target), [Path(mixture), *(source.path for source in found.sources)])
        content = plan_of(found, count=rows, world_size=world_size)
    typer.echo("\n".join(plan_lines(content)))
    target.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8", newline="\n")
    note(f"written: {target}")


@app.command()
def run(
    config: Annotated[
        str, typer.Argument(help="YAML with the settings of the run; qsit train configs writes examples.")
    ],
    settings: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME=VALUE]...", help="Over the file's own lines, as in learning_rate=1e-5."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the newest checkpoint of the output folder.")
    ] = False,
    mixture: Annotated[
        str | None,
        typer.Option(metavar="RATIO.yaml", help="Take the shares that qsit train balance search has found."),
    ] = None,
) -> None:
    """Fine-tune a model on rated images and conversations: LoRA or full.

    Settings, files, wording and lengths are checked before the first step. Several devices: torchrun --nproc-per-node N
    -m qsit_plugin.cli train run CONFIG, or accelerate launch. The folder of the result is printed on stdout.
    """
    from qsit_plugin.training.balance.ratio import as_settings, check_fits, read_ratio
    from qsit_plugin.training.config import read_config

    with ends_in_words(lambda: "Nothing is written yet: give the same command again"):
        ratio = None if mixture is None else read_ratio(mixture)
        changes = settings or []
        chosen = read_config(config, changes if ratio is None else as_settings(ratio, config, changes))
        if ratio is not None:
            check_fits(ratio, chosen)
    with ends_in_words(lambda: what_a_run_has_saved(chosen.output)):
        from qsit_plugin.training.requirements import require_training

        require_training()
        from qsit_plugin.training import run as finetune

        if ratio is not None and finetune.is_first():
            note(ratio.line())
        result = finetune.run(chosen, resume=resume, say=say, ratio=None if ratio is None else ratio.note())
    if finetune.is_first():
        typer.echo(result)


app.command()(evaluate)
app.add_typer(balance.app, name="balance")


@app.command()
def configs(folder: Annotated[str, typer.Argument(help="Where to; made if it is not there.")]) -> None:
    """Write example settings: for LoRA, full fine-tuning, a balance search, and several devices with accelerate."""
    from importlib.resources import files

    target = Path(folder)
    examples = sorted(
        (file for file in files("qsit_plugin.training").joinpath("configs").iterdir()), key=lambda f: f.name
    )
    there = [file.name for file in examples if (target / file.name).exists()]
    if there:
        stop(f"{', '.join(there)} in {target} would be overwritten: give another folder", WRONG_USAGE)
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        stop(f"cannot make the folder {target}: {error.strerror}", WRONG_USAGE)
    for file in examples:
        (target / file.name).write_text(file.read_text(encoding="utf-8"), encoding="utf-8", newline="\n")
        typer.echo(target / file.name)
