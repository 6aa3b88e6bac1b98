"""Ctrl-C and SIGTERM during training: the step under way is finished and saved before the run ends."""

from __future__ import annotations

import os
import signal
import threading
import time
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)
GRACE = 30
"""As many seconds as torchrun gives a run that is to stop."""
SAME = 2.0
"""Seconds in which another signal is the same stop: a terminal or a scheduler sends it to every process of a run, and
torchrun, which gets it too, sends it to its processes once more."""


class Stopped(KeyboardInterrupt):
    """A run that was asked to stop, and has saved its state. ``number``: of the signal."""

    def __init__(self, number: int):
        super().__init__(signal.Signals(number).name)
        self.number = number


class StopSignals:
    """While it is entered, the first SIGINT or SIGTERM only sets ``number``; one after ``SAME`` seconds stops at once.

    Signals reach the main thread of a process only, so in another thread nothing is changed.
    """

    def __init__(self) -> None:
        self.number, self._since = 0, 0.0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.number:
            if time.monotonic() - self._since < SAME:
                return
            raise Stopped(number)
        self.number, self._since = number, time.monotonic()
        # not print(): the signal may have come in the middle of one, and a buffer cannot be entered twice
        os.write(
            2, b"stopping: the step under way is finished and saved first (once more, later: at once, without saving)\n"
        )


def outlive_a_stop(worker: int) -> None:
    """For the workers of a DataLoader: terminals and schedulers send a stop to every process of a run, but the step
    under way still needs its rows. So Ctrl-C is ignored and SIGTERM ends a worker ``GRACE`` seconds later: not never,
    since Python terminates by it what a program has left at its end, and waits."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "alarm"):  # not on Windows, where a stop reaches no other process
        signal.signal(signal.SIGTERM, lambda number, frame: signal.alarm(GRACE))
