"""Many files moved, copied, linked or written, so that it can be taken back: a manifest says all of it beforehand.

``plan`` writes the manifest before the first file moves, ``carry_out`` does what it says, ``undo`` takes it back. A run
that was killed anywhere is undone, or gone on with, by the same two functions. Memory hardly grows with the files.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from qsit_plugin.errors import QSiTError
from qsit_plugin.row_file import replacing, why

from . import file_steps
from .file_steps import FileLeft, Step

VERSION = 1

SHOWN = 5
"""Steps that cannot be done, as an error names them."""

_KINDS = {"do": str, "target": str, "source": str, "size": int, "mtime_ns": int, "sha256": str, "text": str}

Names = Sequence[str | os.PathLike[str]]


class ManifestError(QSiTError, ValueError):
    """A plan that cannot be carried out, or a manifest that cannot be read. Nothing was touched."""


class Outcome(NamedTuple):
    """``done``: carried out, or taken back. Neither that nor an ``error``: it was so already."""

    step: Step
    done: bool
    error: str | None = None


def plan(path: str | os.PathLike[str], steps: Iterable[Step], *, within: Names) -> int:
    """Write a manifest of steps (``file_steps.file_step``, ``text_step``); it is on the disk when this returns.

    Nothing else is touched.

    Args:
        path: of the manifest, which must not be there yet.
        within: folders that no step may leave, neither with its source nor with its target; they need not be there
            yet. A file that is itself a link counts as lying where the link lies.

    Returns: the number of steps.

    Raises:
        ManifestError: no step at all, or some that cannot be done, the first of which it names: a target that is there
            already or comes twice, a way out of the folders, a link that would be moved.
        OSError: the manifest cannot be written; or whatever ``steps`` raises.
    """
    if os.path.lexists(path):
        raise ManifestError(f"{os.fspath(path)} is there already: give the manifest another name")
    roots = [os.path.realpath(root) for root in within]
    count, problems, said = 0, 0, []
    folders: set[str] = set()
    with replacing(Path(path)) as fresh, fresh.open("w", encoding="ascii", newline="\n") as stream:
        stream.write(_line({"qsit_manifest": VERSION, "within": roots, "made": datetime.now(UTC).isoformat()}))
        for step, problem in check(steps, within):
            count += 1
            if problem is not None:
                problems += 1
                said += [problem] if problems <= SHOWN else []
                continue
            for folder in _missing(os.path.dirname(step.target), folders):
                stream.write(_line({"folder": folder}))
            stream.write(_line(asdict(step)))
        if problems:
            raise ManifestError("; ".join(said) + (f"; and {problems - SHOWN:,} more" if problems > SHOWN else ""))
        if not count:
            raise ManifestError("there is no file to move, copy, link or write")
    return count


def check(steps: Iterable[Step], within: Names) -> Iterator[tuple[Step, str | None]]:
    """Each step, and why it cannot be done. ``within``: as ``plan``."""
    roots = [os.path.realpath(root) for root in within]
    inside, seen = _inside(roots), set()
    for step in steps:
        problem = None
        if step.source and not inside(os.path.dirname(step.source)):
            problem = f"{step.source} does not lie in {' or '.join(roots)}"
        elif not inside(os.path.dirname(step.target)):
            problem = f"{step.target} does not lie in {' or '.join(roots)}"
        elif os.path.lexists(step.target):
            problem = f"{step.target} is there already"
        elif hash(step.target) in seen:
            problem = f"{step.target} comes twice"
        elif step.do == "move" and os.path.islink(step.source):
            problem = f"{step.source} is a link, which a move would break: copy it"
        seen.add(hash(step.target))
        yield step, problem


def carry_out(path: str | os.PathLike[str], *, within: Names | None = None) -> Iterator[Outcome]:
    """Do what a manifest says, one step each time the iterator is advanced; one that fails does not end the others.

    ``within``: folders that no step may leave; None: those of the manifest. Raises ManifestError, before any step.
    """
    for step in _read(path, within)[0]():
        yield _outcome(file_steps.do, step)


def undo(path: str | os.PathLike[str], *, within: Names | None = None) -> Iterator[Outcome]:
    """Take back what was done by a manifest, as ``file_steps.undo`` does; folders that were made go if they are empty.

    A file that changed since, or whose old place is taken, is left, with the reason as ``error``. May be repeated.
    ``within``, raises: as ``carry_out``.
    """
    steps, folders = _read(path, within)
    for step in steps():
        yield _outcome(file_steps.undo, step)
    for folder in reversed(folders):
        with suppress(OSError):  # not empty, or never made
            os.rmdir(folder)


def _outcome(work: Callable[[Step], bool], step: Step) -> Outcome:
    try:
        return Outcome(step, work(step))
    except FileLeft as error:
        return Outcome(step, False, str(error))
    except OSError as error:
        return Outcome(step, False, why(error))


def _inside(roots: Sequence[str]) -> Callable[[str], bool]:
    """Whether a folder lies in one of these; links in its path are followed."""

    @lru_cache(maxsize=1024)
    def inside(folder: str) -> bool:
        real = Path(os.path.realpath(folder))
        return any(real.is_relative_to(root) for root in roots)

    return inside


def _is_above(folder: str, roots: Sequence[str]) -> bool:
    """Whether it had to be made for one of the roots themselves."""
    return os.path.isabs(folder) and any(Path(root).is_relative_to(os.path.realpath(folder)) for root in roots)


def _missing(folder: str, known: set[str]) -> list[str]:
    """The folders that have to be made for this one, the outermost first; each is given once."""
    found: list[str] = []
    while folder not in known and not os.path.lexists(folder):
        known.add(folder)
        found.append(folder)
        folder = os.path.dirname(folder)
    return found[::-1]


def _read(path: str | os.PathLike[str], within: Names | None) -> tuple[Callable[[], Iterator[Step]], list[str]]:
    """The steps, read anew with each call, and the folders that were to be made. Raises ManifestError for a line that
    is none of a manifest, or leads out of the folders."""
    name, folders = os.fspath(path), []
    rows = _rows(path)
    header = next(rows, {})
    if header.get("qsit_manifest") != VERSION or not isinstance(header.get("within"), list):
        raise ManifestError(f"{name}: not a manifest of version {VERSION}; name another file")
    roots = [os.path.realpath(root) for root in (header["within"] if within is None else within)]
    inside = _inside(roots)
    for number, row in enumerate(rows, 2):
        if set(row) == {"folder"} and isinstance(row["folder"], str):
            folders.append(row["folder"])
            places = [] if _is_above(row["folder"], roots) else [row["folder"]]
        else:
            step = _step(row)
            if step is None:
                raise ManifestError(f"{name}, line {number}: not a step of a manifest")
            places = [os.path.dirname(one) for one in (step.source, step.target) if one]
        if not all(os.path.isabs(place) and inside(place) for place in places):
            raise ManifestError(f"{name}, line {number}: leads out of the folders that it may touch")
    return lambda: filter(None, map(_step, _rows(path))), folders


def _rows(path: str | os.PathLike[str]) -> Iterator[dict[str, Any]]:
    with open(path, encoding="ascii", errors="replace", newline="\n") as stream:
        for number, line in enumerate(stream, 1):
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise ManifestError(f"{os.fspath(path)}, line {number}: not a row of a manifest ({error})") from error
            if not isinstance(row, dict):
                raise ManifestError(f"{os.fspath(path)}, line {number}: not a row of a manifest")
            yield row


def _step(row: dict[str, Any]) -> Step | None:
    """None for a row that holds no step."""
    whole = row.keys() == _KINDS.keys() and all(type(row[name]) is kind for name, kind in _KINDS.items())
    if not whole or row["do"] not in ("move", "copy", "link", "write") or "\0" in row["target"] + row["source"]:
        return None
    if not row["target"] or bool(row["source"]) == (row["do"] == "write"):
        return None
    return Step(**row)


def _line(row: dict[str, Any]) -> str:
    """ASCII, so that names with line feeds, and those that are no UTF-8 (lone surrogates), come back as they were."""
    return json.dumps(row) + "\n"
