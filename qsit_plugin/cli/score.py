"""``qsit score``: a number for every photo."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from qsit_plugin.protocol import profile_name

from . import options, output
from . import resume as resuming
from .bulk import cluster
from .bulk import scoring as bulk

FORMATS = ("table", "csv", "jsonl", "sqlite")

Format = Annotated[
    str | None,
    typer.Option("--format", "-f", help="table, csv, jsonl or sqlite; by default as --out ends, else table."),
]


@options.chooses_model()
def score(
    choice: options.Choice,
    paths: options.Paths,
    format: Format = None,
    out: options.Out = None,
    recursive: options.Recursive = True,
    listed: bulk.Listed = None,
    verify: bulk.Verify = False,
    column: bulk.ImageColumn = None,
    resume: resuming.Resume = False,
    engine_on: cluster.EngineOn = None,
    workers: cluster.WorkerCount = "1-",
    cpus: cluster.Cpus = 1.0,
    gpus: cluster.Gpus = 0.0,
) -> None:
    """Score photos: 0 is bad, 1 is excellent.

    Folders are searched for images. Data goes to stdout (or --out), everything else to stderr. The exit status is 1
    when some inputs failed; the others are scored all the same. With --out FILE.sqlite an image is scored once,
    whatever its name, and a run that was stopped goes on where it stopped; with csv and jsonl --resume does that. With
    --engine-on and --out DIR.parquet it is scored on a Ray cluster.
    """
    if engine_on is not None:
        cluster.refuse_others(verify=verify, resume=resume, column=column, format=format)
        counted = cluster.workers(workers, cpus, gpus)
        cluster.score_on_cluster(choice, paths, out, engine_on, counted, recursive=recursive, listed=listed)
        return
    cluster.refuse_without_cluster(workers=workers, cpus=cpus, gpus=gpus)
    kind = output.choose_format(format, out, FORMATS, "table")
    if resume:
        resuming.check(out, kind)
    if kind == "sqlite":
        bulk.score_into_store(choice, paths, out, recursive=recursive, listed=listed, verify=verify, column=column)
        return
    bulk.refuse_without_store(verify=verify, listed=listed, column=column)
    from qsit_plugin.images.reading import ImageError
    from qsit_plugin.scores import error_row, score_row

    from .cut_short import Tally
    from .inputs import read
    from .progress import Progress

    items = read(paths, recursive=recursive)
    output.check_target(out, items)
    tally = Tally(len(items))
    resumes = out is not None and kind in resuming.KINDS
    with tally.ending("done and written" + ("; the same with --resume goes on from there" if resumes else "")):
        files = [item for item in items if isinstance(item, Path)]
        qsit = choice.open() if files else None
        name = "" if qsit is None else profile_name(qsit.profile, choice.profile)
        behind = None
        if resume and out is not None:
            recipe = None if qsit is None else resuming.Recipe.of(qsit, name)
            items, behind = resuming.go_on(out, kind, recipe, items)
            files = [item for item in items if isinstance(item, Path)]
            tally.done = tally.total - len(items)
        results = iter(()) if qsit is None else qsit.iter_scores(files, errors="return")
        rows_are_visible = out is None and sys.stdout.isatty() and kind != "table"
        with (
            tally.writing(out),
            output.opened(out, behind=behind) as stream,
            output.row_writer(kind, stream, header=not behind) as writer,
            Progress(len(items), bar=not rows_are_visible) as progress,
        ):
            for item in items:
                result = next(results) if isinstance(item, Path) else item
                progress.advance()
                if isinstance(result, ImageError):
                    tally.failed += 1
                    progress.line(f"qsit: {result}")
                    writer.write(error_row(item if isinstance(item, Path) else item.source, result))
                else:
                    writer.write(score_row(item, result.to_dict(), name))
                tally.done += 1
