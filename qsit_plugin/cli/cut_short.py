"""Output that breaks off: a full disk, a reader that went away."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from qsit_plugin.row_file import CutShort, why

from .failures import SOME_FAILED, stop


@contextmanager
def says_what_is_safe(out: str | None, count: Callable[[], tuple[int, int]]) -> Iterator[None]:
    """End with status 1 where the output breaks off, and say how much is whole. ``count``: images done, of all."""
    try:
        yield
    except CutShort as error:
        done, total = count()
        stop(f"{error.why}: {done} of {total} images are written and whole in {out}", SOME_FAILED)
    except OSError as error:
        if out is not None or error.filename or reader_is_gone(error):
            raise
        silence_stdout()
        done, total = count()
        stop(
            f"stdout cannot be written, {why(error)}: {done} of {total} images are written; a part of a row may follow",
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
