"""The process in which cases run one after the other; guard.py starts it and ends it where a case goes too far."""

from __future__ import annotations

import contextlib
import faulthandler
import importlib
import os
import shutil
import socket
import sys
import tempfile
import traceback
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NoReturn

from .case import Case

SHORTEST, LONGEST = 20, 4000
"""Characters of a message that names what was given and the cure, and that somebody can read."""


def serve(connection: Connection, scratch: str, log: str, keep: bool) -> None:
    """Does every task that comes over the connection until it is None.

    A generator's name is answered by ("ready",) when it is prepared; (name, number, seed) by ("runs", label) before
    the case and ("ended", outcome, trouble, peak) after it. ``outcome``: the score, or the name and text of an
    exception. ``trouble``: a traceback, or empty. ``peak``: the largest resident memory in bytes, 0 where this system
    does not tell.
    """
    _isolate(Path(scratch), log)
    while (task := connection.recv()) is not None:
        if isinstance(task, str):
            _module(task).prepare()
            connection.send(("ready",))
            continue
        generator, number, seed = task
        case = _module(generator).case(number, seed)
        connection.send(("runs", case.label))
        folder = case_folder(Path(scratch), generator, number, seed)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        _forget_peak()
        outcome, trouble = _run(case, folder)
        connection.send(("ended", outcome, trouble, peak_memory()))
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)


def case_folder(scratch: Path, generator: str, number: int, seed: int) -> Path:
    """Where the files of a case lie."""
    return scratch / f"{generator}-{seed}-{number}"


def _run(case: Case, folder: Path) -> tuple[str, str]:
    try:
        return case.run(folder), ""
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # every kind is looked for; a panic of tokenizers is no Exception
        outcome = f"{type(error).__name__}: {' '.join(str(error).split()):.300}"
        if not {kind.__name__ for kind in type(error).__mro__} & set(case.allowed):
            return outcome, _shortened(traceback.format_exc())
        if not SHORTEST <= len(str(error)) <= LONGEST:
            return outcome, f"a message of {len(str(error)):,} characters"
        return outcome, ""


def _module(generator: str) -> Any:
    return importlib.import_module(f"tests.fuzz.{generator}")


def _isolate(scratch: Path, log: str) -> None:
    """Everything that a case prints goes to the log, which also gets the stack of a process that is ended; nothing
    reaches the network, the user's caches or another folder."""
    file = open(log, "w", encoding="utf-8")  # noqa: SIM115 (open as long as the process lives)
    os.dup2(file.fileno(), 1)
    os.dup2(file.fileno(), 2)
    faulthandler.enable(file)
    with contextlib.suppress(ImportError, OSError, ValueError):  # there is no resource on Windows
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.environ |= {"HF_HUB_OFFLINE": "1", "XDG_CACHE_HOME": str(scratch), "LOCALAPPDATA": str(scratch)}
    os.environ |= {"HF_HOME": str(scratch), "HOME": str(scratch), "USERPROFILE": str(scratch), "OMP_NUM_THREADS": "1"}
    tempfile.tempdir = str(scratch)
    socket.socket.connect = _no_network  # type: ignore[method-assign]
    sys.stdin = open(os.devnull)  # noqa: SIM115 (a question such as "trust this code?" is answered by an error)


def _no_network(self: socket.socket, address: object) -> NoReturn:
    raise RuntimeError(f"a damaged input made the program connect to {address}")


def _shortened(text: str) -> str:
    lines = [line if len(line) <= 300 else line[:300] + " …" for line in text.splitlines()]
    return "\n".join(lines if len(lines) <= 60 else [*lines[:20], "    …", *lines[-40:]])


def _forget_peak() -> None:
    """On Linux, from now on the peak of the resident memory is that of this case. Elsewhere it is the process's."""
    with contextlib.suppress(OSError), open("/proc/self/clear_refs", "w") as file:
        file.write("5")


def peak_memory() -> int:
    """Bytes of resident memory at its peak; 0 on Windows, where the standard library does not know it."""
    status = Path("/proc/self/status")
    if status.is_file():
        return kilobytes(status.read_text(), "VmHWM")
    try:
        import resource
    except ImportError:
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def kilobytes(status: str, key: str) -> int:
    """A size of /proc/PID/status, in bytes; 0 where it is not there."""
    return next((int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith(key)), 0)
