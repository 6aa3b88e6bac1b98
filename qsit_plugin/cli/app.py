"""The ``qsit`` application: its sub-commands, and how it ends when something is wrong."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from qsit_plugin.engines.installed import TORCH
from qsit_plugin.errors import ContextError, WeightsError
from qsit_plugin.row_file import CutShort, is_full

from . import ask, compare, demo, explain, info, score, weights
from .bench import commands as bench
from .bulk import export, gate, report
from .cut_short import reader_is_gone, silence_stdout
from .failures import INTERRUPTED, PIPE_CLOSED, SOME_FAILED, WRONG_USAGE, stop
from .train import commands as train


class Commands(TyperGroup):
    """Ends every sub-command the same way: one line on stderr and an exit status, a traceback only for our own bugs."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            stop("interrupted", INTERRUPTED)
        except (WeightsError, ContextError) as error:  # also ProfileError, and NonFiniteError of a dtype that overflows
            stop(str(error), WRONG_USAGE)
        except ModuleNotFoundError as error:
            if error.name in ("torch", "transformers"):  # of a command that only torch can do
                stop(f"this needs {error.name}, which is not installed: {TORCH}", WRONG_USAGE)
            if "pip install" not in str(error):
                raise
            stop(str(error), WRONG_USAGE)
        except OSError as error:
            gone = reader_is_gone(error)
            if gone or is_full(error):
                silence_stdout()
            if gone:
                raise typer.Exit(PIPE_CLOSED) from None
            if is_full(error) and not error.filename and not isinstance(error, CutShort):
                stop("the disk is full: stdout is cut short", SOME_FAILED)
            stop(str(error), SOME_FAILED)  # a file cut short by a full disk, a drive that was unplugged


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Score the quality of photos and explain the scores.",
    epilog="Start with: qsit demo, then: qsit score PHOTO, qsit explain PHOTO",
)
for _command in (
    score.score, ask.ask, explain.explain, compare.compare, export.export, gate.gate, report.report,
    demo.demo, info.info,
):  # fmt: skip
    app.command()(_command)
app.add_typer(weights.app, name="weights")
app.add_typer(bench.app, name="bench")
app.add_typer(train.app, name="train")


def _print_version(wanted: bool) -> None:
    if wanted:
        from qsit_plugin import __version__

        typer.echo(f"qsit-plugin {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    pass
