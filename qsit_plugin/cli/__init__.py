"""The ``qsit`` command. One file a sub-command; nothing heavy is imported before a sub-command needs it."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from qsit_plugin.paused_collector import paused_collector

from .threads import share_the_cores


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and raise SystemExit: 0 all good, 1 some inputs failed, 2 wrong usage, 130 interrupted."""
    for stream in (sys.stdout, sys.stderr):
        _write_utf8(stream)
    share_the_cores()
    try:
        with paused_collector():
            from .app import app

        app(args=None if arguments is None else list(arguments), prog_name="qsit")
    except KeyboardInterrupt:  # while still importing; a running command is stopped by app.Commands
        print("qsit: interrupted", file=sys.stderr)
        sys.exit(130)
    sys.exit(0)


def _write_utf8(stream: Any) -> None:
    """Redirected output is UTF-8 everywhere (Windows' default is not), and no file name can make printing fail."""
    if not hasattr(stream, "reconfigure"):
        return
    if stream.isatty() or os.environ.get("PYTHONIOENCODING"):
        stream.reconfigure(errors="backslashreplace")
    else:
        stream.reconfigure(encoding="utf-8", errors="backslashreplace")
