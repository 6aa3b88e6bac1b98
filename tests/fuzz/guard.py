"""Runs cases in a worker process and ends it where a case takes too long, takes too much memory, or brings it down."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .worker import case_folder, kilobytes, serve

SECONDS = 60.0
MEMORY = 3 * 2**30
"""Bounds of a case. They are guards against hangs and blow-ups, far above what any case needs."""

START = 300.0
"""Seconds in which a worker has imported torch and transformers, on the slowest machine."""

MEMORY_IS_WATCHED = os.name == "posix"
"""Windows' standard library does not say how much memory a process has."""


@dataclass(frozen=True)
class Ending:
    """How a case ended. ``trouble`` is empty where it ended well."""

    number: int
    label: str
    outcome: str
    trouble: str
    seconds: float
    peak: int
    folder: Path

    def report(self) -> str:
        return f"case {self.number}: {self.label}\n  -> {self.outcome}\n{self.trouble}"


class Guard:
    """``with Guard(scratch) as guard: guard.run("checkpoints", number, seed)``. ``scratch``: a folder for the cases."""

    def __init__(self, scratch: Path, *, seconds: float = SECONDS, memory: int = MEMORY, keep: bool = False) -> None:
        self.scratch, self.seconds, self.memory, self.keep = scratch, seconds, memory, keep
        self.log = scratch / "worker.log"
        self.process: Any = None
        self.prepared: set[str] = set()

    def __enter__(self) -> Guard:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def run(self, generator: str, number: int, seed: int) -> Ending:
        if self.process is None:
            self._start()
        if generator not in self.prepared:
            self._prepare(generator)
        begin = time.monotonic()
        label, outcome, trouble, peak = "", "", "", 0
        self.connection.send((generator, number, seed))
        while not outcome and not trouble:
            trouble = self._overstepped(begin)
            try:
                if not trouble and self.connection.poll(0.02):
                    kind, *answer = self.connection.recv()
                    if kind == "runs":
                        label = answer[0]
                    else:
                        outcome, trouble, peak = answer
            except (EOFError, ConnectionError):
                self.process.join(10)
                trouble = f"the process died with exit code {self.process.exitcode}"
        seconds = time.monotonic() - begin
        if not trouble and peak > self.memory:
            trouble = f"it took {peak / 2**30:.2f} GiB, more than {self.memory / 2**30:.2f}"
        if not outcome or peak > self.memory:
            trouble = f"{trouble}\n{self._end()}".rstrip()
        folder = case_folder(self.scratch, generator, number, seed)
        return Ending(number, label, outcome or "no outcome", trouble, seconds, peak, folder)

    def _overstepped(self, begin: float) -> str:
        if time.monotonic() - begin > self.seconds:
            return f"it took more than {self.seconds:g} s"
        resident = _resident(self.process.pid)
        if resident > self.memory:
            return f"it took {resident / 2**30:.2f} GiB by then, more than {self.memory / 2**30:.2f}"
        return ""

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        arguments = (theirs, str(self.scratch), str(self.log), self.keep)
        self.process = context.Process(target=serve, args=arguments, daemon=True)
        self.process.start()
        theirs.close()
        self.prepared.clear()

    def _prepare(self, generator: str) -> None:
        try:
            self.connection.send(generator)
            ready = self.connection.poll(START) and self.connection.recv() == ("ready",)
        except (EOFError, ConnectionError):
            ready = False
        if not ready:
            raise RuntimeError(f"the worker could not prepare {generator}:\n{self._end()}")
        self.prepared.add(generator)

    def _end(self) -> str:
        """End the process; what it was doing, as faulthandler wrote it into the log."""
        if self.process.is_alive() and hasattr(signal, "SIGABRT") and os.name == "posix":
            os.kill(self.process.pid, signal.SIGABRT)
            self.process.join(5)
        self.process.kill()
        self.process.join()
        self.process = None
        text = self.log.read_text(encoding="utf-8", errors="replace")
        stack = text[text.find("Fatal Python error") :] if "Fatal Python error" in text else text
        return "\n".join(stack.splitlines()[-60:][:30])

    def _stop(self) -> None:
        """Let the process come to its end, so that it gives its semaphores back; end it where it does not."""
        if self.process is not None:
            self.connection.send(None)
            self.process.join(10)
            self.process.kill()
            self.process.join()
            self.process = None


def _resident(pid: int) -> int:
    """Resident memory of a process in bytes; 0 where only the process itself can tell, afterwards."""
    try:
        return kilobytes(Path(f"/proc/{pid}/status").read_text(), "VmRSS")
    except OSError:
        return 0
