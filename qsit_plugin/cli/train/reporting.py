"""How a command that trains ends when something is wrong, or when it is stopped: with how to go on."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import typer

from ..failures import SOME_FAILED, WRONG_USAGE, stop


def say(text: str) -> None:
    """A line of a run, on stderr as it is."""
    typer.echo(text, err=True)


@contextmanager
def report_errors(how_to_go_on: Callable[[], str]) -> Iterator[None]:
    """Every error that a user can cause ends the program with its message; Ctrl-C and SIGTERM with ``how_to_go_on()``
    and the status that shells give to a program that such a signal ended: 130 and 143."""
    from qsit_plugin.images.reading import ImageError
    from qsit_plugin.training.data.mixture import MixtureError
    from qsit_plugin.training.errors import ConfigError

    try:
        yield
    except KeyboardInterrupt as error:
        number = getattr(error, "number", signal.SIGINT)  # that of training.signals.Stopped
        stop(f"interrupted. {how_to_go_on()}", 128 + number)
    except (ConfigError, MixtureError, ModuleNotFoundError) as error:
        _stop_lines(str(error))
    except ImageError as error:
        stop(str(error), SOME_FAILED)


def _stop_lines(message: str) -> NoReturn:
    """Lists of what is wrong keep their lines; the last of them says what to do."""
    *lines, last = message.splitlines()
    for line in lines:
        say(line)
    stop(last, WRONG_USAGE)


def what_a_run_has_saved(output: str) -> str:
    """For a run that was stopped: what is in its output folder, and the way on from there."""
    from qsit_plugin.training.checkpoints import newest
    from qsit_plugin.training.run import RECORD

    folder = Path(output)
    if not (folder / RECORD).is_file():
        return "Nothing is written yet: give the same command again"
    found = newest(folder / "checkpoints")
    if found is None:
        return f"No step is saved in {folder} yet: the same command with --resume begins again"
    return f"Saved in {folder} is step {found.name.rsplit('-', 1)[1]}: the same command with --resume goes on from it"
