"""``qsit score``: a number for every photo."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from . import options

if TYPE_CHECKING:
    from qsit_plugin.images.reading import ImageError
    from qsit_plugin.model import QSiT
    from qsit_plugin.scores import Score

FORMATS = ("table", "csv", "jsonl")


@options.chooses_model()
def score(
    choice: options.Choice,
    paths: options.Paths,
    format: options.RowFormat = None,
    out: options.Out = None,
    recursive: options.Recursive = True,
) -> None:
    """Score photos: 0 is bad, 1 is excellent.

    Folders are searched for images. Data goes to stdout (or --out), everything else to stderr. The exit status is 1
    when some inputs failed; the others are scored all the same.
    """
    from qsit_plugin.images.reading import ImageError

    from . import output
    from .cut_short import Tally
    from .inputs import read
    from .progress import Progress
    from .rows import error_row, score_row

    kind = output.choose_format(format, out, FORMATS, "table")
    items = read(paths, recursive=recursive)
    output.check_target(out, items)
    tally = Tally(len(items))
    with tally.ending("done and written"):
        qsit = choice.open() if any(isinstance(item, Path) for item in items) else None
        name = "" if qsit is None else options.profile_name(qsit, choice.profile)
        rows_are_visible = out is None and sys.stdout.isatty() and kind != "table"
        with (
            tally.writing(out),
            output.opened(out) as stream,
            output.row_writer(kind, stream) as writer,
            Progress(len(items), bar=not rows_are_visible) as progress,
        ):
            for item, result in score_all(qsit, items):
                progress.advance()
                if isinstance(result, ImageError):
                    tally.failed += 1
                    progress.line(f"qsit: {result}")
                    writer.write(error_row(result.source if item is None else item, result))
                else:
                    writer.write(score_row(item, result, name))
                tally.done += 1


def score_all(
    model: QSiT | None, items: Sequence[Path | ImageError]
) -> Iterator[tuple[Path | None, Score | ImageError]]:
    """(path, result) in the order of the items; an item that is an error already passes through, with path None.

    The model may be missing when no item is a path.
    """
    files = [item for item in items if isinstance(item, Path)]
    results = iter(()) if model is None else model.iter_scores(files, errors="return")
    for item in items:
        yield (item, next(results)) if isinstance(item, Path) else (None, item)
