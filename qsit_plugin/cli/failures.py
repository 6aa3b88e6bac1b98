"""Exit statuses, and the one line on stderr that goes with them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import typer

SOME_FAILED = 1
WRONG_USAGE = 2
INTERRUPTED = 130
"""As a shell reports a program that Ctrl-C ended."""
PIPE_CLOSED = 141
"""As a shell reports a program whose reader went away, as in ``qsit score … | head``."""


def note(message: str) -> None:
    """One line for the person at the keyboard: on stderr, so that stdout holds data only."""
    typer.echo(" ".join(message.split()), err=True)


def report(message: str) -> None:
    """One line about something that went wrong."""
    note(f"qsit: {message}")


def stop(message: str, status: int) -> NoReturn:
    """Say why in one line and end the program with this status."""
    report(message)
    raise typer.Exit(status)


@contextmanager
def ending(status: int, *kinds: type[Exception]) -> Iterator[None]:
    """End the program with this status, and the error's own message, where one of these kinds is raised inside."""
    try:
        yield
    except kinds as error:
        stop(str(error), status)


@contextmanager
def ending_bench() -> Iterator[None]:
    """End with status 2 for a file that is not there or not what it should be, and for a missing package."""
    try:
        with ending(WRONG_USAGE, ValueError):
            yield
    except ModuleNotFoundError as error:
        stop(f"{error.name} is not installed: pip install 'qsit-plugin[bench]'", WRONG_USAGE)
    except FileNotFoundError as error:
        stop(f"no such file: {error.filename}", WRONG_USAGE)
