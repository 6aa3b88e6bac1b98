"""``qsit compare``: which of two photos is the better one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, TextIO

import typer

from qsit_plugin.protocol import profile_name

from . import options
from .failures import SOME_FAILED, report

FORMATS = ("table", "csv", "jsonl")
SIDES = ("path", "score", "level", "std", "width", "height", "dtype", "mode")
SHARED = ("model", "fingerprint", "engine", "profile", "scope", "scope_kind")
COLUMNS = ("probability_a_better", *(f"{name}_{side}" for side in "ab" for name in SIDES), *SHARED)


@options.chooses_model(
    "model", "engine", "device", "dtype", "revision", "adapter", "profile", "exif_rotation", "max_pixels"
)
def compare(
    choice: options.Choice,
    a: Annotated[str, typer.Argument(help="A photo.")],
    b: Annotated[str, typer.Argument(help="Another photo.")],
    format: options.RowFormat = None,
    out: options.Out = None,
) -> None:
    """Score two photos and say how probable it is that A is the better one.

    Each photo is judged apart; the model never sees both at once.
    """
    from qsit_plugin.images.reading import ImageError
    from qsit_plugin.scores import Comparison, Score, score_row

    from . import output

    kind = output.choose_format(format, out, FORMATS, "table")
    output.check_target(out, [Path(a), Path(b)])
    qsit = choice.open()
    results = qsit.score([a, b], errors="return")
    broken = [result for result in results if isinstance(result, ImageError)]
    for error in broken:
        report(str(error))
    if broken:
        raise typer.Exit(SOME_FAILED)
    scores = [result for result in results if isinstance(result, Score)]
    name = profile_name(qsit.profile, choice.profile)
    rows = [score_row(path, score.to_dict(), name) for path, score in zip((a, b), scores, strict=True)]
    row = {"probability_a_better": Comparison(*scores).probability_a_better, "a": rows[0], "b": rows[1]}
    with output.opened(out) as stream:
        if kind == "jsonl":
            output.JsonLines(stream).write(row)
        elif kind == "csv":
            output.Csv(stream, COLUMNS, flat).write(row)
        else:
            _print(stream, row)


def flat(row: dict[str, Any]) -> dict[str, Any]:
    """A comparison without nesting, for csv."""
    sides = {f"{name}_{side}": row[side][name] for side in "ab" for name in SIDES}
    return {"probability_a_better": row["probability_a_better"], **sides, **{name: row["a"][name] for name in SHARED}}


def _print(stream: TextIO, row: dict[str, Any]) -> None:
    from . import output

    with output.row_writer("table", stream) as writer:
        writer.write(row["a"])
        writer.write(row["b"])
    stream.write(f"The first is the better one with probability {row['probability_a_better']:.2f}.\n")
