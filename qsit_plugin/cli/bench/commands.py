"""``qsit bench``: how well scores agree with human ratings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .. import options
from ..failures import INTERRUPTED, SOME_FAILED, WRONG_USAGE, ending, note, report, stop
from .calibrate import calibrate
from .qbench import qbench

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from qsit_plugin.evaluation.accuracy import Pair
    from qsit_plugin.evaluation.journal import Journal
    from qsit_plugin.evaluation.scorers import Scorer

app = typer.Typer(no_args_is_help=True, help="Compare scores with human ratings.")
app.command()(calibrate)
app.command()(qbench)

_TABLE = "A table of your own (--dataset csv)"


@app.command()
@options.chooses_model("engine", "device", "dtype", "revision", "adapter", "profile", "max_pixels")
def accuracy(
    choice: options.Choice,
    dataset: Annotated[
        str, typer.Option(help="koniq, spaq, kadid10k, livec, biq2021, agiqa3k, csiq, tid2013, or csv (yours).")
    ],
    images: Annotated[str, typer.Option(metavar="FOLDER", help="Where the images are.")],
    annotations: Annotated[str, typer.Option(metavar="FILE", help="The dataset's annotation file, as published.")],
    out: Annotated[
        str,
        typer.Option("--out", "-o", metavar="FILE.json", help="The result; FILE.md and FILE.scores.jsonl go beside."),
    ],
    metrics: Annotated[
        str, typer.Option(metavar="NAME,NAME", help="qsit names and any no-reference metric of pyiqa, side by side.")
    ] = "",
    split: Annotated[
        str | None, typer.Option(help="An official split, or all; by default test where there is one, else all.")
    ] = None,
    holdout: options.Holdout = None,
    group_by: Annotated[
        list[str] | None,
        typer.Option(metavar="COLUMN", help="Figures within each of its values, too; may be given several times."),
    ] = None,
    partial: Annotated[
        bool, typer.Option("--partial", help="Go on with a dataset that is not complete; the result says so.")
    ] = False,
    resamples: Annotated[int, typer.Option(min=0, help="Bootstrap resamples of the intervals; 0 for none.")] = 1000,
    seed: Annotated[int, typer.Option(help="Random seed of the bootstrap.")] = 0,
    image_column: Annotated[str, typer.Option(rich_help_panel=_TABLE)] = "image",
    mos_column: Annotated[str, typer.Option(rich_help_panel=_TABLE)] = "mos",
    split_column: Annotated[str | None, typer.Option(rich_help_panel=_TABLE)] = None,
    group_column: Annotated[
        str | None, typer.Option(rich_help_panel=_TABLE, help="The photo that an image was made from.")
    ] = None,
    distortion_column: Annotated[str | None, typer.Option(rich_help_panel=_TABLE)] = None,
    lower_is_better: Annotated[bool, typer.Option("--lower-is-better", rich_help_panel=_TABLE)] = False,
    model: Annotated[
        list[str] | None,
        typer.Option("--model", "-m", rich_help_panel="Model", help="As for qsit score; may be given several times."),
    ] = None,
) -> None:
    """Compare scores with human ratings on one dataset: SRCC, PLCC, KRCC, with intervals.

    An interrupted run resumes when it is started again. The exit status is 1 when a metric could not run or an image
    failed; both are listed in the result.
    """
    from qsit_plugin.evaluation.accuracy import open_journal, pair_images, result_of
    from qsit_plugin.evaluation.baselines import MetricError, check_names
    from qsit_plugin.evaluation.datasets.authentic import Columns
    from qsit_plugin.evaluation.datasets.published import DATASETS, read_ratings
    from qsit_plugin.evaluation.datasets.ratings import DatasetError
    from qsit_plugin.evaluation.figures import check_column
    from qsit_plugin.evaluation.journal import JournalError
    from qsit_plugin.weights import ENTRIES

    from ..output import check_target

    target = Path(out)
    if target.suffix.lower() != ".json":
        stop(f"--out {out!r} must end in .json; a table is written beside it as .md", WRONG_USAGE)
    check_target(out, [Path(annotations)])
    columns = Columns(image_column, mos_column, split_column, group_column, distortion_column, lower_is_better)
    if columns != Columns() and dataset in DATASETS:
        stop(
            f"the columns of {dataset} are known; the options for columns and --lower-is-better need --dataset csv",
            WRONG_USAGE,
        )
    named = [name.strip() for name in metrics.split(",") if name.strip()]
    own = list(dict.fromkeys([*(model or []), *(name for name in named if name in ENTRIES)]))
    baselines = list(dict.fromkeys(name for name in named if name not in ENTRIES))
    if not own and not baselines:
        own = [options.DEFAULT_MODEL]
    choices = [replace(choice, model=name) for name in own]
    with ending(WRONG_USAGE, DatasetError, JournalError, MetricError, ModuleNotFoundError):
        choice.check()
        _need_scipy()
        check_names(baselines)
        ratings = read_ratings(dataset, annotations, split=split, columns=columns, partial=partial, holdout=holdout)
        pairs, missing = pair_images(ratings, images, partial=partial)
        by = list(dict.fromkeys([*ratings.group_by, *(group_by or [])]))
        for column in group_by or []:
            check_column([row for row, _ in pairs], column)
        unavailable: dict[str, str] = {}
        scorers = _scorers(choices, baselines, choice.device, unavailable)
        with open_journal(target.with_suffix(".scores.jsonl"), ratings, images) as journal:
            figures = _run(scorers, pairs, journal, unavailable, resamples=resamples, seed=seed, group_by=by)
    result = result_of(ratings, figures, unavailable, missing, resamples=resamples, seed=seed)
    _publish(result, target)
    if unavailable or any(found["failed"] for found in figures.values()):
        raise typer.Exit(SOME_FAILED)


def _need_scipy() -> None:
    """End with status 2 without scipy: before hours of scoring, not after them."""
    try:
        import scipy  # noqa: F401
    except ModuleNotFoundError:
        stop('the statistics need scipy, which is not installed: pip install "qsit-plugin[bench]"', WRONG_USAGE)


def _run(
    scorers: Iterable[Scorer], pairs: Sequence[Pair], journal: Journal, unavailable: dict[str, str], **settings: Any
) -> dict[str, dict[str, Any]]:
    """Figures of one metric after the other, so that only one is in memory; a failure's reason goes to ``unavailable``.

    ``settings``: of ``summarize``.
    """
    import sys

    from qsit_plugin.evaluation.accuracy import changed, score_pairs, summarize, unchecked, unscored
    from qsit_plugin.row_file import CutShort

    from ..progress import Progress

    figures: dict[str, dict[str, Any]] = {}
    for scorer in scorers:
        no_memory = getattr(sys.modules.get("torch"), "OutOfMemoryError", MemoryError)  # where torch computes at all
        if scorer.name in figures:
            stop(f"two models are called {scorer.name}: evaluate them with separate --out files", WRONG_USAGE)
        todo = unscored(scorer, pairs, journal)
        note(f"{scorer.name}: {len(todo):,} of {len(pairs):,} images to score")
        if again := len(changed(scorer, pairs, journal)):
            note(f"{scorer.name}: {again:,} of them changed since they were scored: scored again")
        if unknown := unchecked(scorer, pairs, journal):
            note(
                f"{scorer.name}: {unknown:,} scores in {journal.path} are of an earlier version, without size and time "
                "of their images; where images were replaced since, delete that file"
            )
        try:
            with Progress(len(todo)) as progress:
                for row, outcome in score_pairs(scorer, todo, journal):
                    progress.advance()
                    if "error" in outcome:
                        progress.line(f"qsit: {scorer.name}: {row.image}: {outcome['error']}")
        except (FloatingPointError, MemoryError, no_memory) as error:
            unavailable[scorer.name] = str(error)
            report(str(error))
            continue
        except CutShort as error:
            stop(
                f"{error.why}: the scores so far are whole in {journal.path}; the same command goes on there",
                SOME_FAILED,
            )
        except KeyboardInterrupt:
            stop(f"interrupted: the scores so far are in {journal.path}; the same command goes on there", INTERRUPTED)
        figures[scorer.name] = summarize(scorer, [row for row, _ in pairs], journal, **settings)
        del scorer  # or it would stay in memory while the next one is opened
    return figures


def _scorers(
    choices: Sequence[options.Choice], baselines: Sequence[str], device: str, unavailable: dict[str, str]
) -> Iterator[Scorer]:
    """Open our models, then the baselines; one that cannot be opened is reported and recorded, the others run."""
    from qsit_plugin.errors import WeightsError
    from qsit_plugin.evaluation.baselines import MetricError, open_metric
    from qsit_plugin.evaluation.scorers import ModelScorer

    for choice in choices:
        try:
            yield ModelScorer(choice.open())
        except WeightsError as error:
            unavailable[choice.model] = str(error)
            report(str(error))
    for name in baselines:
        from qsit_plugin.engines.devices import resolve_device  # torch, which pyiqa brings

        try:
            yield open_metric(name, str(resolve_device(device)))
        except MetricError as error:
            unavailable[name] = str(error)
            report(str(error))


def _publish(result: dict[str, Any], target: Path) -> None:
    """Write the JSON and the Markdown, and print the Markdown."""
    import json
    import sys

    from qsit_plugin.evaluation.report import markdown
    from qsit_plugin.row_file import RowFile

    text = markdown(result)
    page = target.with_suffix(".md")
    for file, content in ((target, json.dumps(result, indent=2, ensure_ascii=False, allow_nan=False)), (page, text)):
        with RowFile(file) as stream:
            stream.write(content.rstrip("\n") + "\n")
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.markdown import Markdown

        Console().print(Markdown(text))
    else:
        typer.echo(text, nl=False)
    note(f"written: {target} and {page}")
