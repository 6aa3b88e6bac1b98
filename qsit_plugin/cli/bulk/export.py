"""``qsit export``: the table of a store."""

from __future__ import annotations

from typing import Annotated

import typer

from .. import output
from ..failures import WRONG_USAGE, ending, note


def export(
    store: Annotated[str, typer.Argument(metavar="FILE.sqlite", help="What qsit score --out FILE.sqlite wrote.")],
    out: Annotated[str, typer.Argument(metavar="OUT", help="The table to write: .csv, .jsonl or .parquet.")],
    format: Annotated[
        str | None, typer.Option("--format", "-f", help="csv, jsonl or parquet; by default as OUT ends.")
    ] = None,
    recipe: Annotated[
        int | None, typer.Option(help="Which model's scores, by number, where the store holds those of several.")
    ] = None,
    existing: Annotated[
        bool, typer.Option("--existing", help="Leave out images that are no longer under their path.")
    ] = False,
) -> None:
    """Write the scores of a store as a table, whole or not at all."""
    from qsit_plugin.bulk.export import export as write
    from qsit_plugin.bulk.store import StoreError

    kind = output.choose_format(format, out, ("csv", "jsonl", "parquet"), "csv")
    output.check_target(out)
    with ending(WRONG_USAGE, StoreError):
        rows, missing = write(store, out, kind=kind, recipe=recipe, existing=existing)
    if missing:
        note(f"{missing:,} images have no score by this model and are left out: run qsit score on them")
    note(f"written: {out}, {rows:,} rows")
