"""``qsit train evaluate``: a model's figures on rows of its own format, with ratings and with questions."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .. import options
from ..failures import WRONG_USAGE, ending, stop

if TYPE_CHECKING:
    from qsit_plugin.training.validation import Figures


@options.chooses_model("adapter", "device", "dtype", "revision", "profile")
def evaluate(
    choice: options.Choice,
    checkpoint: Annotated[str, typer.Argument(help="qsit-nano, qsit-mini, qsit, a checkpoint folder, or a Hub id.")],
    data: Annotated[
        str,
        typer.Option(metavar="FILE", help="Rows (.jsonl of qsit train convert, .json), or a mixture of them (.yaml)."),
    ],
    images: Annotated[str, typer.Option(metavar="FOLDER", help="That the rows' image paths are relative to.")],
    answers: Annotated[
        str, typer.Option(help="Choices: letter (the likeliest letter, fast) or generate (written, as published).")
    ] = "letter",
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first N images, for a first look.")] = None,
    out: Annotated[str | None, typer.Option("--out", "-o", metavar="FILE.json", help="All figures, as JSON.")] = None,
) -> None:
    """Measure a model: agreement with ratings, losses, accuracy of choices.

    The same figures as a run with validation rows gives while it trains. Ratings of several sources are never pooled:
    SRCC, PLCC and KRCC are then means over the sources. Choices are rows whose question lists lettered options.
    """
    from qsit_plugin.training.validation.measure import ANSWERS, validate

    from .. import output

    if answers not in ANSWERS:
        stop(f"no way to answer {answers!r}: give one of {', '.join(ANSWERS)}", WRONG_USAGE)
    output.check_target(out, [Path(data)])
    if not Path(images).is_dir():
        stop(f"no folder {images}: --images is the one that the rows' image paths are relative to", WRONG_USAGE)
    from qsit_plugin.training.data.mixture import read_rows

    with ending(WRONG_USAGE, ModuleNotFoundError, ValueError):  # a file, a row or an image that cannot be used
        rows = read_rows(data)
        model = replace(choice, model=checkpoint, engine="torch").open()  # losses need its states
        figures = validate(model, rows, images, images=limit, answers=answers)
    typer.echo("\n".join(table(figures, answers)))
    if out is not None:
        about = {"checkpoint": checkpoint, "adapter": choice.adapter, "fingerprint": model.fingerprint}
        about |= {"data": Path(data).name, "answers": answers}
        with output.opened(out) as stream:
            stream.write(json.dumps(about | figures.to_dict(), indent=2, ensure_ascii=False) + "\n")


def table(figures: Figures, answers: str) -> Iterator[str]:
    """The figures as aligned lines; those that are not defined on the rows are left out."""
    counts = figures.counts
    yield f"{counts['images']:,} images: {counts['score']:,} ratings, {counts['interpret']:,} conversations"
    named = {
        "SRCC": figures.srcc,
        "PLCC": figures.plcc,
        "PLCC, 4-parameter logistic": figures.plcc_logistic4,
        "KRCC": figures.krcc,
        "score loss": figures.score_loss,
        "level mass": figures.level_mass,
        "interpret loss": figures.interpret_loss,
    }
    for name, value in named.items():
        if value is not None:
            yield f"{name:<30}{value:.4f}"
    if figures.accuracy is not None:
        rule = "by letter" if answers == "letter" else "written answers"
        yield (
            f"{'accuracy, ' + rule:<30}{figures.accuracy:.2%} of {counts['choices']:,} choices, "
            f"chance {figures.chance:.2%}"
        )
    for kind, share in figures.accuracy_by_kind.items():
        yield f"  {kind:<28}{share:.2%}"
    for name, table in figures.by_source.items():
        yield f"SRCC of {name:<21} " + (f"{table['srcc']:.4f}" if "srcc" in table else f"none, {table['n']} ratings")
    for name, value in figures.by_group.items():
        yield f"SRCC of {name:<21} {value:.4f}"
