"""``qsit report``: a store as a page to look at."""

from __future__ import annotations

from typing import Annotated

import typer

from .. import output
from ..failures import WRONG_USAGE, ending, note


def report(
    store: Annotated[str, typer.Argument(metavar="FILE.sqlite", help="What qsit score --out FILE.sqlite wrote.")],
    out: Annotated[str, typer.Option("--out", "-o", metavar="FILE.html", help="The page to write.")],
    recipe: Annotated[
        int | None, typer.Option(help="Which model's scores, by number, where the store holds those of several.")
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(
            metavar="RECIPE|FILE", help="A second run over the same images: another recipe's number, or another store."
        ),
    ] = None,
    answers: Annotated[
        str | None, typer.Option(metavar="FILE.jsonl", help="Texts of qsit explain or qsit ask, beside their images.")
    ] = None,
    thumbnails: Annotated[
        int, typer.Option(min=0, help="Images with a picture in the page, the worst and best first: about 3 kB each.")
    ] = 3000,
) -> None:
    """Write one HTML file: distribution, worst and best, every image with filter and sort, two runs side by side.

    It needs nothing beside it and asks nothing of the network. Pictures are of the files as they are now.
    """
    from qsit_plugin.bulk.report import report as write
    from qsit_plugin.bulk.store import StoreError

    output.choose_format(None, out, ("html",), "html")
    output.check_target(out)
    with ending(WRONG_USAGE, StoreError, ValueError):
        made = write(store, out, recipe=recipe, against=against, answers=answers, pictures=thumbnails)
    if made.failed:
        note(f"{made.failed:,} images have no score and are listed at the end of the page")
    note(f"written: {out}, {made.listed:,} of {made.scored:,} images, {made.thumbnails:,} with a picture")
