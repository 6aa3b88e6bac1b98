"""``qsit score --out FILE.sqlite``: very many images."""

from __future__ import annotations

import glob
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .. import options
from ..failures import INTERRUPTED, SOME_FAILED, WRONG_USAGE, ending, note, stop

if TYPE_CHECKING:
    from qsit_plugin.bulk.inputs.source import Source
    from qsit_plugin.bulk.scoring import Counts
    from qsit_plugin.images.errors import ImageError

Verify = Annotated[
    bool,
    typer.Option("--verify", help="With --out FILE.sqlite: hash every file, also where size and time are as stored."),
]
Listed = Annotated[
    str | None,
    typer.Option(
        "--list",
        metavar="FILE",
        help="With --out FILE.sqlite: also the paths in this file, one a line or NUL-separated.",
    ),
]
ImageColumn = Annotated[
    str | None,
    typer.Option(
        "--image-column",
        metavar="NAME",
        help="With --out FILE.sqlite: which column of a dataset holds the images, where it has several.",
    ),
]


def refuse_without_store(*, verify: bool, listed: str | None, column: str | None) -> None:
    """End with status 2 for options that only a store has."""
    given_ones = {"--verify": verify, "--list": listed is not None, "--image-column": column is not None}
    for name, given in given_ones.items():
        if given:
            stop(f"{name} goes with --out FILE.sqlite", WRONG_USAGE)


def score_into_store(
    choice: options.Choice,
    paths: list[str],
    out: str | None,
    *,
    recursive: bool,
    listed: str | None,
    verify: bool,
    column: str | None = None,
) -> None:
    """Score into a store. Ends with status 1 where images failed, 2 for a store that cannot be used, 130 on Ctrl-C."""
    if out is None:
        stop("a store is a file: give --out FILE.sqlite", WRONG_USAGE)
    check_store_target(out)
    if listed not in (None, "-") and not os.path.isfile(listed):
        stop(f"no such file: {listed}", WRONG_USAGE)
    counts, _ = fill(
        choice,
        out,
        lambda skipped: _sources(paths, listed, skipped, recursive=recursive, column=column),
        verify=verify,
        stopped="the same command goes on from there",
    )
    note(f"{out}: {_words(counts)}")
    if counts.failed:
        raise typer.Exit(SOME_FAILED)


def check_store_target(out: str) -> None:
    """End with status 2 for a store that cannot be where it shall be, before a model is loaded."""
    if os.path.isdir(out) or not os.path.isdir(os.path.dirname(os.path.abspath(out))):
        stop(f"cannot write {out}: a file in a folder that is there", WRONG_USAGE)


def fill(
    choice: options.Choice,
    out: str,
    find: Callable[[Counter[str]], Iterator[Source | ImageError]],
    *,
    verify: bool = False,
    stopped: str,
) -> tuple[Counts, int]:
    """Score what is found into a store, and say on stderr what fails and how far it is.

    ``find`` is given a counter for pictures that are left out, see ``sources``. ``stopped``: what to do after Ctrl-C.

    Returns: the counts, and the number of the recipe. Ends with status 2 where the store cannot be used, 130 on Ctrl-C.
    """
    from qsit_plugin.bulk.recipe import recipe
    from qsit_plugin.bulk.scorer import Scorer
    from qsit_plugin.bulk.scoring import Counts, score_into
    from qsit_plugin.bulk.store import Store, StoreError
    from qsit_plugin.images.formats import left_out

    settings = asdict(choice)
    model = choice.open()
    scorer = Scorer.of(model, settings.pop("model"), **settings)
    with ending(WRONG_USAGE, StoreError):
        store = Store(out, recipe(model, choice.profile))
    skipped: Counter[str] = Counter()
    progress, counts = _Progress(), Counts()

    def on_image(so_far: Counts, path: str, error: str | None) -> None:
        nonlocal counts
        counts = so_far
        if error is not None:
            note(f"qsit: {path}: {error}")
        progress.at(so_far)

    try:
        with store:
            score_into(store, scorer, find(skipped), verify=verify, on_image=on_image)
    except KeyboardInterrupt:
        stop(f"interrupted: {counts.done:,} images are done; {stopped}", INTERRUPTED)
    if words := left_out(skipped.elements()):
        note(words)
    return counts, store.recipe


def _sources(paths: list[str], listed: str | None, skipped: Counter[str], **how: Any) -> Iterator[Source | ImageError]:
    from qsit_plugin.bulk.inputs.sources import sources
    from qsit_plugin.images.errors import ImageError

    for name in named(paths, listed):
        if isinstance(name, ImageError):
            yield name
        else:
            yield from sources([name], skipped=skipped, **how)


def named(paths: list[str], listed: str | None) -> Iterator[str | ImageError]:
    """The names that a command was given, what its patterns match, and those of its list file."""
    from qsit_plugin.bulk.inputs.addresses import is_address
    from qsit_plugin.bulk.inputs.sources import listed as names_in
    from qsit_plugin.images.errors import ImageError

    from ..inputs import matches

    for path in paths:
        plain = os.path.expanduser(path)
        if is_address(plain) or os.path.lexists(plain) or not glob.has_magic(path):
            yield plain
        elif found := sorted(matches(plain)):
            yield from found
        else:
            yield ImageError(path, "no file matches this pattern")
    if listed is not None:
        yield from names_in(listed)


def _words(counts: Counts) -> str:
    return f"{counts.done:,} images: {counts.scored:,} scored, {counts.known:,} known, {counts.failed:,} failed"


class _Progress:
    """A line on stderr now and then; how many images there will be is not known."""

    def __init__(self) -> None:
        self.started = self.last = time.monotonic()
        self.every = 5.0 if sys.stderr.isatty() else 15.0

    def at(self, counts: Counts) -> None:
        now = time.monotonic()
        if now - self.last >= self.every:
            self.last = now
            note(f"{_words(counts)}; {counts.done / (now - self.started):,.1f} images/s")
