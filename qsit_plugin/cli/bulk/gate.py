"""``qsit gate``: the good and the bad images of a folder into folders of their own, and back."""

from __future__ import annotations

import itertools
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from qsit_plugin.protocol import LEVELS

from .. import options
from ..failures import INTERRUPTED, SOME_FAILED, WRONG_USAGE, ending, note, report, stop
from . import scoring
from .gate_options import GateOptions

if TYPE_CHECKING:
    from qsit_plugin.bulk.gate import Gate, Threshold

DONE = {"move": "moved", "copy": "copied", "link": "linked"}

_rule = {"rich_help_panel": "What passes"}
_act = {"rich_help_panel": "What is done"}


@options.chooses_model()
def gate(
    choice: options.Choice,
    folder: Annotated[str | None, typer.Argument(metavar="DIR", help="The folder to look through.")] = None,
    least: Annotated[
        float | None, typer.Option("--min", min=0.0, max=1.0, help="Scores from this on pass.", **_rule)
    ] = None,
    keep: Annotated[
        str | None,
        typer.Option(metavar="SHARE", help="The best of this folder pass, as in 20%, whatever they score.", **_rule),
    ] = None,
    level: Annotated[str | None, typer.Option(help=f"Levels from this on pass: {', '.join(LEVELS)}.", **_rule)] = None,
    passed: Annotated[
        str | None, typer.Option("--pass", metavar="DIR", help="Where those go that pass.", **_act)
    ] = None,
    failed: Annotated[str | None, typer.Option("--fail", metavar="DIR", help="Where the others go.", **_act)] = None,
    copy: Annotated[bool, typer.Option("--copy", help="Copy them.", **_act)] = False,
    move: Annotated[bool, typer.Option("--move", help="Move them; asks first.", **_act)] = False,
    link: Annotated[bool, typer.Option("--link", help="Make symbolic links to them.", **_act)] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list what would pass, on stdout.", **_act)] = False,
    xmp: Annotated[
        bool, typer.Option("--xmp", help="Write stars into XMP sidecars where there are none.", **_act)
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Move without asking.", **_act)] = False,
    manifest: Annotated[
        str | None, typer.Option(metavar="FILE", help="What undoes it; by default beside the first folder.", **_act)
    ] = None,
    undo: Annotated[
        str | None, typer.Option(metavar="MANIFEST", help="Take back what this manifest did.", **_act)
    ] = None,
    store: Annotated[
        str | None, typer.Option(metavar="FILE.sqlite", help="Take scores from this store, and add to it.")
    ] = None,
    recursive: options.Recursive = True,
) -> None:
    """Sort the images of a folder into those that pass and the others.

    Images keep their place below DIR; their own sidecars go with them; no file is overwritten. A manifest is written
    before the first file moves, and qsit gate --undo MANIFEST takes everything back, also after a crash. Images that
    cannot be scored stay, and make the exit status 1.
    """
    if undo is not None:
        if any((folder, least is not None, keep, level, passed, failed, copy, move, link, dry_run, xmp)):
            stop("--undo goes alone: the manifest says what is taken back", WRONG_USAGE)
        _undo(undo)
        return
    kinds = [name for name, given in (("copy", copy), ("move", move), ("link", link)) if given]
    asked = GateOptions(folder, least, keep, level, passed, failed, kinds, dry_run, xmp, yes, manifest)
    asked.check()
    if store is not None:
        scoring.check_store_target(store)
    with _kept(store) as file:
        counts, recipe = scoring.fill(
            choice,
            file,
            lambda skipped: asked.found(recursive, skipped),
            stopped="nothing was moved; "
            + ("the same command goes on from there" if store else "--store keeps scores"),
        )
        _act_on(asked, file, recipe)
    if counts.failed:
        note(f"{counts.failed:,} images have no score and stay where they are")
        raise typer.Exit(SOME_FAILED)


@contextmanager
def _kept(store: str | None) -> Iterator[str]:
    """The store that was given, or one for this run alone."""
    if store is not None:
        yield store
        return
    with tempfile.TemporaryDirectory(prefix="qsit-gate-") as place:
        yield os.path.join(place, "scores.sqlite")


def _act_on(asked: GateOptions, file: str, recipe: int) -> None:
    from qsit_plugin.bulk.gate import Threshold, keep_share

    scores = [row["score"] for _, _, row in asked.scored(file, recipe)]
    if not scores:
        stop("no image here has a score", SOME_FAILED)
    share = asked.share
    threshold = Threshold(asked.least or 0.0) if share is None else keep_share(scores, share)
    gate = asked.gate(threshold.value)
    passing = sum(gate.passes(row) for _, _, row in asked.scored(file, recipe))
    note(f"{_rule_of(asked, threshold)}: {passing:,} of {len(scores):,} images pass")
    if asked.dry_run:
        for path, _, row in asked.scored(file, recipe):
            typer.echo(f"{'pass' if gate.passes(row) else 'fail'}  {row['score']:.3f}  {row['level']:<9}  {path}")
        return
    count = (passing if gate.passed else 0) + (len(scores) - passing if gate.failed else 0)
    if gate.do == "move" and not asked.yes and not typer.confirm(f"move {count:,} images?", err=True):
        stop("nothing was moved", SOME_FAILED)
    _carry_out(gate, asked, file, recipe)


def _rule_of(asked: GateOptions, threshold: Threshold) -> str:
    words = []
    if asked.least is not None:
        words.append(f"score at least {threshold.value:g}")
    if threshold.interval is not None:
        low, high = threshold.interval
        words.append(f"best {asked.keep}: score at least {threshold.value:.4f} (95 % interval {low:.4f} to {high:.4f})")
    if asked.level is not None:
        words.append(f"level at least {asked.level}")
    return ", ".join(words)


def _carry_out(gate: Gate, asked: GateOptions, file: str, recipe: int) -> None:
    from qsit_plugin.bulk.manifest import ManifestError, carry_out, plan

    manifest = asked.manifest or _manifest_name(asked)
    with ending(WRONG_USAGE, ManifestError):
        count = plan(manifest, gate.steps(asked.scored(file, recipe)), within=gate.within())
    note(f"{count:,} files to do")
    _say_what_undoes(manifest)
    done = failed = 0
    try:
        with ending(WRONG_USAGE, ManifestError):
            for step, is_done, error in carry_out(manifest):
                done += is_done
                if error is not None:
                    failed += 1
                    report(f"{step.source or step.target}: {error}")
    except KeyboardInterrupt:
        _say_what_undoes(manifest)
        stop(f"interrupted: {done:,} of {count:,} files are done", INTERRUPTED)
    note(f"{done:,} files {DONE[gate.do] if gate.passed or gate.failed else 'written'}")
    if failed:
        raise typer.Exit(SOME_FAILED)


def _say_what_undoes(manifest: str) -> None:
    """As a command to be pasted into a shell. Not by ``note``, which would change blanks and line ends in the name."""
    quoted = subprocess.list2cmdline([manifest]) if sys.platform == "win32" else shlex.quote(manifest)
    typer.echo(f"taken back by: qsit gate --undo {quoted}", err=True)


def _manifest_name(asked: GateOptions) -> str:
    """Beside the first folder that images go to, or the nearest one above it that is there."""
    base = [*asked.places, asked.root][0]
    while not os.path.isdir(os.path.dirname(base)):
        base = os.path.dirname(base)
    name = f"{base}-gate-{time.strftime('%Y%m%d-%H%M%S')}"
    names = (f"{name}{end}.jsonl" for end in itertools.chain([""], (f"-{number}" for number in itertools.count(2))))
    return next(one for one in names if not os.path.lexists(one))  # two may come within one second


def _undo(manifest: str) -> None:
    from qsit_plugin.bulk.manifest import ManifestError, undo

    if not os.path.isfile(manifest):
        stop(f"no such file: {manifest}", WRONG_USAGE)
    done = left = 0
    with ending(WRONG_USAGE, ManifestError):
        for step, is_done, error in undo(manifest):
            done += is_done
            if error is not None:
                left += 1
                report(f"{step.target}: {error}")
    note(f"{done:,} files taken back" + (f", {left:,} left as they are" if left else ""))
    if left:
        raise typer.Exit(SOME_FAILED)
