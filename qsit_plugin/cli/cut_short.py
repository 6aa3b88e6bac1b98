"""How a command on many images ends, also when interrupted: Ctrl-C, a full disk, a closed pipe."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import typer

from qsit_plugin.row_file import CutShort, why

from .failures import INTERRUPTED, SOME_FAILED, note, stop


@dataclass
class Tally:
    """How many images are done, and failed among them, of all that a command was given."""

    total: int
    done: int = 0
    failed: int = 0

    @contextmanager
    def ending(self, done: str) -> Iterator[None]:
        """End with status 130 on Ctrl-C, with 1 where some failed, and say how many. ``done``: as ``"done"``."""
        try:
            yield
        except KeyboardInterrupt:
            stop(f"interrupted: {self.done} of {self.total} images are {done}", INTERRUPTED)
        if self.failed:
            if self.total > 1:
                note(f"{self.failed} of {self.total} inputs failed")
            raise typer.Exit(SOME_FAILED)

    @contextmanager
    def writing(self, out: str | None) -> Iterator[None]:
        """End with status 1 where the output breaks off, and say how much of it is whole."""
        try:
            yield
        except CutShort as error:
            stop(f"{error.why}: {self.done} of {self.total} images are written and whole in {out}", SOME_FAILED)
        except OSError as error:
            if out is not None or error.filename or reader_is_gone(error):
                raise
            silence_stdout()
            stop(
                f"stdout cannot be written, {why(error)}: {self.done} of {self.total} images are written; a part of a "
                "row may follow",
                SOME_FAILED,
            )


def reader_is_gone(error: OSError) -> bool:
    """Whether ``| head`` has closed the pipe; Windows says EINVAL for that, without naming a file."""
    if error.errno == errno.EPIPE:
        return True
    return sys.platform == "win32" and error.errno == errno.EINVAL and not error.filename


def silence_stdout() -> None:
    """Point stdout at nothing, or the interpreter would complain once more, at its end, about what it cannot write."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError):
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  # a stdout that is no file has no number
