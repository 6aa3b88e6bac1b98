"""``qsit score --engine-on``: the engine on the machines of a Ray cluster, or on Ray on this one."""

from __future__ import annotations

import os
import time
from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .. import options
from ..failures import INTERRUPTED, SOME_FAILED, WRONG_USAGE, ending, note, stop
from ..output import FORMATS
from .scoring import named

if TYPE_CHECKING:
    from qsit_plugin.bulk.ray_scoring import Done, Workers

SECONDS = 15.0
"""Between two lines that say how far it is."""

_of_cluster: dict[str, Any] = {"rich_help_panel": "Cluster"}
EngineOn = Annotated[
    str | None,
    typer.Option(
        "--engine-on",
        metavar="WHERE",
        help="Where the engine runs: local (Ray on this machine), ray://HOST:10001, or auto (the Ray cluster that this "
        "machine belongs to); with --out DIR.parquet.",
        **_of_cluster,
    ),
]
WorkerCount = Annotated[
    str,
    typer.Option(
        "--workers",
        metavar="N|MIN-MAX",
        help="With --engine-on: how many workers, each with the model; by default 1 to as many as fit.",
        **_of_cluster,
    ),
]
Cpus = Annotated[
    float, typer.Option("--cpus", min=0.0, help="With --engine-on: processor cores of a worker.", **_of_cluster)
]
Gpus = Annotated[
    float,
    typer.Option("--gpus", min=0.0, help="With --engine-on: GPUs of a worker, or a share, as .25.", **_of_cluster),
]


ANY_NUMBER = "1-"


def refuse_without_cluster(*, workers: str, cpus: float, gpus: float) -> None:
    """End with status 2 for options that only a cluster has."""
    for name, given in (("--workers", workers != ANY_NUMBER), ("--cpus", cpus != 1.0), ("--gpus", gpus != 0.0)):
        if given:
            stop(f"{name} goes with --engine-on", WRONG_USAGE)


def refuse_others(*, verify: bool, resume: bool, column: str | None, format: str | None) -> None:
    """End with status 2 for options that a cluster has not."""
    for name, given in (("--verify", verify), ("--image-column", column is not None)):
        if given:
            stop(f"{name} goes with --out FILE.sqlite, not with --engine-on", WRONG_USAGE)
    if resume:
        stop("--resume is not needed with --engine-on: the same command goes on where it was stopped", WRONG_USAGE)
    if format not in (None, "parquet"):
        stop(f"--engine-on writes parquet, not {format}: qsit score --out FILE.sqlite has the others", WRONG_USAGE)


def workers(count: str, cpus: float, gpus: float) -> Workers:
    """The options as ``score_on_ray`` takes them. Ends with status 2 for what is no number and no range."""
    from qsit_plugin.bulk.ray_scoring import Workers

    least, dash, most = count.partition("-")
    if not least.isdecimal() or int(least) < 1 or (most and (not most.isdecimal() or int(most) < int(least))):
        stop(f"--workers {count!r}: give a number from 1 on, or a range such as 2-16", WRONG_USAGE)
    return Workers(int(least), int(most) if most else (None if dash else int(least)), cpus, gpus)


def score_on_cluster(
    choice: options.Choice,
    paths: list[str],
    out: str | None,
    where: str,
    workers: Workers,
    *,
    recursive: bool,
    listed: str | None,
) -> None:
    """Score on a cluster. Ends with status 1 where images failed, 2 for what cannot be done, 130 on Ctrl-C."""
    if out is None or not out.lower().endswith(FORMATS["parquet"]):
        stop("--engine-on writes a folder of Parquet files: give --out DIR.parquet", WRONG_USAGE)
    if os.path.lexists(out):
        stop(f"{out} is there already, and stays as it is: give --out another name", WRONG_USAGE)
    if not os.path.isdir(os.path.dirname(os.path.abspath(out))):
        stop(f"cannot write {out}: the folder it shall lie in does not exist", WRONG_USAGE)
    if listed not in (None, "-") and not os.path.isfile(listed):
        stop(f"no such file: {listed}", WRONG_USAGE)

    from qsit_plugin.bulk.ray_scoring import ClusterError, Done, score_on_ray
    from qsit_plugin.bulk.scorer import Scorer
    from qsit_plugin.bulk.work_units import UnseenError, units
    from qsit_plugin.images.formats import left_out
    from qsit_plugin.row_file import FileBusy

    skipped: Counter[str] = Counter()
    done, last = Done(), time.monotonic()

    def on_unit(so_far: Done, result: dict[str, Any]) -> None:
        nonlocal done, last
        done = so_far
        for path, error in result["errors"]:
            note(f"qsit: {path}: {error}")
        if time.monotonic() - last >= SECONDS:
            last = time.monotonic()
            note(f"{so_far.units:,} of {so_far.of:,} units of work: {_words(so_far)}")

    try:
        with ending(WRONG_USAGE, ClusterError, UnseenError, FileBusy, FileExistsError):
            done = score_on_ray(
                units(named(paths, listed), recursive=recursive, skipped=skipped),
                Scorer(**_settings(choice)),
                out,
                address=where,
                workers=workers,
                recursive=recursive,
                on_start=lambda recipe: note(_headline(recipe, where)),
                on_unit=on_unit,
            )
    except KeyboardInterrupt:
        stop(f"interrupted: {_words(done)}; the same command goes on from there", INTERRUPTED)
    if words := left_out(skipped.elements()):
        note(words)
    note(f"written: {out}, {_words(done)}")
    if done.failed:
        raise typer.Exit(SOME_FAILED)


def _settings(choice: options.Choice) -> dict[str, Any]:
    """What ``Scorer`` takes; a path among it is absolute, as a worker has a working directory of its own."""
    given = asdict(choice)
    for name in ("model", "adapter", "profile"):
        if given[name] is not None and os.path.exists(given[name]):
            given[name] = os.path.abspath(given[name])
    return given


def _headline(recipe: dict[str, Any], where: str) -> str:
    return f"{recipe['model']} ({recipe['engine']}, {recipe['dtype']}) on Ray, {where}: {recipe['scope']}"


def _words(done: Done) -> str:
    return f"{done.rows:,} images, {done.failed:,} of them failed"
