"""The ``qsit`` application: its sub-commands, and how it ends when something is wrong."""

from __future__ import annotations

import errno
import os
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from qsit_plugin import __version__
from qsit_plugin.context import ContextError
from qsit_plugin.protocol import ProfileError
from qsit_plugin.weights.errors import WeightsError

from . import ask, bench, compare, demo, explain, info, score, train, weights
from .failures import INTERRUPTED, PIPE_CLOSED, SOME_FAILED, WRONG_USAGE, stop


class Commands(TyperGroup):
    """Ends every sub-command the same way: one line on stderr and an exit status, a traceback only for our own bugs."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            stop("interrupted", INTERRUPTED)
        except (WeightsError, ProfileError, ContextError) as error:
            stop(str(error), WRONG_USAGE)
        except FloatingPointError as error:  # a dtype that overflows, or damaged weights
            stop(str(error), WRONG_USAGE)
        except OSError as error:
            if not _reader_is_gone(error):
                stop(str(error), SOME_FAILED)  # a full disk, a drive that was unplugged
            _silence_stdout()
            raise typer.Exit(PIPE_CLOSED) from None


def _reader_is_gone(error: OSError) -> bool:
    """Whether ``| head`` has closed the pipe; Windows says EINVAL for that, without naming a file."""
    if error.errno == errno.EPIPE:
        return True
    return sys.platform == "win32" and error.errno == errno.EINVAL and not error.filename


def _silence_stdout() -> None:
    """Point stdout at nothing, or the interpreter would complain about the closed pipe once more on its way out."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError):
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  # a stdout that is no file has no number


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Score the quality of photos and explain the scores in words.",
    epilog="Start with: qsit demo, then: qsit score PHOTO, qsit explain PHOTO",
)
app.command()(score.score)
app.command()(ask.ask)
app.command()(explain.explain)
app.command()(compare.compare)
app.command()(demo.demo)
app.command()(info.info)
app.add_typer(weights.app, name="weights")
app.add_typer(bench.app, name="bench")
app.add_typer(train.app, name="train")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"qsit-plugin {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    pass
