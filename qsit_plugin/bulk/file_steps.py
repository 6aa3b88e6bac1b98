"""One file that is moved, copied, linked or written, and taken back. Nothing is ever overwritten.

What was done is looked up, not recorded: a file is under its old name, under its new one, or, where a process was
killed in between, under both.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qsit_plugin.errors import QSiTError


class FileLeft(QSiTError, OSError):
    """A file that is left as it is; the message says why."""


@dataclass(frozen=True)
class Step:
    """One file to come: ``source`` is moved, copied or linked to ``target`` (``do``), or ``text`` is written there.

    Paths are absolute. ``size`` in bytes, ``mtime_ns`` and ``sha256`` (hexadecimal) are of the content when it was
    planned. A link is a symbolic one.
    """

    do: str
    target: str
    source: str
    size: int
    mtime_ns: int
    sha256: str
    text: str = ""


def file_step(do: str, source: str | os.PathLike[str], target: str | os.PathLike[str], sha256: str = "") -> Step:
    """``"move"``, ``"copy"`` or ``"link"`` of a file that is there, hashed where ``sha256`` is not given.

    Raises OSError where it cannot be read.
    """
    source = os.path.abspath(source)
    about = os.stat(source)
    digits = sha256 or _hash(source)
    return Step(do, os.path.abspath(target), source, about.st_size, about.st_mtime_ns, digits)


def text_step(target: str | os.PathLike[str], text: str) -> Step:
    """``"write"``: a small text file, UTF-8 with plain line feeds."""
    content = text.encode("utf-8")
    return Step("write", os.path.abspath(target), "", len(content), 0, hashlib.sha256(content).hexdigest(), text)


def do(step: Step) -> bool:
    """Carry out a step; False where a run that was killed had done it already.

    Raises OSError, and then the file is where it was: FileLeft for one that changed since it was planned,
    FileExistsError where the target is taken.
    """
    _remove_part(step)
    if os.path.lexists(step.target):
        return _finish(step)
    os.makedirs(os.path.dirname(step.target), exist_ok=True)
    if step.do == "write":
        _place(step.target, lambda part: Path(part).write_text(step.text, encoding="utf-8", newline="\n"))
        return True
    about = os.stat(step.source)
    if (about.st_size, about.st_mtime_ns) != (step.size, step.mtime_ns):
        raise FileLeft("changed since it was planned, and left where it is")
    if step.do == "link":
        os.symlink(step.source, step.target)
    elif step.do == "copy":
        _place(step.target, lambda part: shutil.copy2(step.source, part))
    else:
        _move(step.source, step.target)
    return True


def undo(step: Step) -> bool:
    """Take a step back; False where there is nothing to take back.

    Raises OSError, and then nothing has changed: FileLeft for what changed since, for a move whose old place is taken,
    and for a copy whose original is gone or has changed.
    """
    _remove_part(step)
    if not os.path.lexists(step.target):
        if step.do == "move" and not os.path.lexists(step.source):
            raise FileLeft(f"gone: neither here nor at {step.source}")
        return False
    if step.do == "move":
        return _move_back(step)
    if step.do == "link":
        if not _is_link(step):
            raise FileLeft("no longer the link that was made, and kept")
    elif not _is_as_planned(step.target, step):
        raise FileLeft("changed since it was made, and kept")
    elif step.do == "copy" and not _is_as_planned(step.source, step):
        raise FileLeft(f"kept, since its original is gone or has changed: {step.source}")
    os.unlink(step.target)
    return True


def _finish(step: Step) -> bool:
    """The target is there: by this step, done by a run that was killed, or in its way."""
    if not (_is_link(step) if step.do == "link" else _is_as_planned(step.target, step)):
        raise FileExistsError(errno.EEXIST, "there already", step.target)
    if step.do == "move" and os.path.lexists(step.source):
        if not _is_as_planned(step.source, step):
            raise FileLeft("changed since it was planned, and left where it is")
        os.unlink(step.source)
    return False


def _move_back(step: Step) -> bool:
    if os.path.lexists(step.source):
        if not _is_as_planned(step.source, step):
            raise FileLeft(f"left here, since its old place is taken: {step.source}")
        if not _is_as_planned(step.target, step):
            return False  # never done, and something else lies there by now
        os.unlink(step.target)  # both: killed between giving the new name and taking the old one
        return True
    if os.path.islink(step.target) or not _is_as_planned(step.target, step, quick=True):
        raise FileLeft("changed since it was moved, and left here")
    os.makedirs(os.path.dirname(step.source), exist_ok=True)
    _move(step.target, step.source)
    return True


def _move(source: str, target: str) -> None:
    if os.path.islink(source):
        raise FileLeft("a link, which a move would break, and left where it is")
    try:
        _rename(source, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        _place(target, lambda part: _copy_to_disk(source, part))
        os.unlink(source)


def _place(target: str, write: Callable[[str], Any]) -> None:
    """Write beside the target, then give it its name: the target is whole or not there."""
    part = _part(target)
    try:
        write(part)
        _rename(part, target)
    except BaseException:
        with suppress(OSError):
            os.unlink(part)
        raise


def _rename(source: str, target: str) -> None:
    """As ``os.rename``, but FileExistsError everywhere, where that one overwrites on all systems but Windows."""
    if sys.platform == "win32":
        os.rename(source, target)
        return
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno in (errno.EXDEV, errno.EEXIST, errno.ENOENT):
            raise
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, "there already", target) from error
        os.rename(source, target)  # a file system without hard links
        return
    try:
        os.unlink(source)
    except OSError:
        os.unlink(target)
        raise


def _copy_to_disk(source: str, target: str) -> None:
    shutil.copy2(source, target)
    with open(target, "rb+") as written:
        os.fsync(written.fileno())  # the original is removed next


def _remove_part(step: Step) -> None:
    """What a run left that was killed while it wrote."""
    with suppress(OSError):
        os.unlink(_part(step.target))


def _part(target: str) -> str:
    """Where content is gathered before it gets its name."""
    folder, name = os.path.split(target)
    return os.path.join(folder, f".{name}.qsit-part")


def _is_link(step: Step) -> bool:
    return os.path.islink(step.target) and os.readlink(step.target) == step.source


def _is_as_planned(path: str, step: Step, *, quick: bool = False) -> bool:
    """Whether a file has its planned content. ``quick``: size and time will do, where nothing is removed by it."""
    if not os.path.isfile(path):
        return False
    about = os.stat(path)
    if about.st_size != step.size:
        return False
    return (quick and about.st_mtime_ns == step.mtime_ns) or _hash(path) == step.sha256


def _hash(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
