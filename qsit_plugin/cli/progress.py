"""How far a long run is: on stderr, with rate and remaining time."""

from __future__ import annotations

import sys
import time
from typing import Any

from .failures import note

EVERY = 15.0
"""Seconds between two lines where stderr is a file or a pipe."""


class Progress:
    """A bar on a terminal, a line now and then elsewhere; nothing for fewer than two images.

    ``bar=False`` keeps the bar away where rows appear on the same terminal and are progress enough.
    """

    def __init__(self, total: int, *, bar: bool = True):
        self.total, self.done = total, 0
        self.started = self.last = time.monotonic()
        self.bar: Any = _bar() if bar and total > 1 and sys.stderr.isatty() else None
        self.lines = total > 1 and not sys.stderr.isatty()

    def __enter__(self) -> Progress:
        if self.bar is not None:
            self.bar.start()
            self.task = self.bar.add_task("images", total=self.total)
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if self.bar is not None:
            self.bar.stop()
        if self.total > 1 and error is None:
            seconds = time.monotonic() - self.started
            note(f"{self.done} images in {duration(seconds)}, {self.done / max(seconds, 1e-9):.1f} images/s")

    def advance(self) -> None:
        self.done += 1
        now = time.monotonic()
        if self.bar is not None:
            self.bar.advance(self.task)
        elif self.lines and now - self.last >= EVERY and self.done < self.total:
            self.last = now
            rate = self.done / (now - self.started)
            left = duration((self.total - self.done) / rate)
            note(f"{self.done}/{self.total} images, {rate:.1f} images/s, {left} left")

    def line(self, message: str) -> None:
        """Print a line above the bar."""
        if self.bar is None:
            note(message)
        else:
            self.bar.console.print(message, markup=False, highlight=False, soft_wrap=True)


def _bar() -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Any) -> Text:
            return Text(f"{task.completed / task.elapsed:.1f} images/s" if task.completed and task.elapsed else "")

    return RichProgress(
        BarColumn(),
        MofNCompleteColumn(),
        Rate(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        redirect_stdout=False,  # rich would send the data to stderr
        redirect_stderr=False,
    )


def duration(seconds: float) -> str:
    """``"45 s"``, ``"3 min 20 s"``, ``"2 h 5 min"``."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
