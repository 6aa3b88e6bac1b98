"""Garbage collection, paused while modules are imported."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def paused_collector() -> Iterator[None]:
    """No garbage collection inside; afterwards it is as it was.

    Importing torch and transformers makes a million objects that stay, and looking for garbage among them costs a
    seventh of the processor time to the first score. Only imports belong inside: without the collector a long run
    (training, a benchmark) keeps every reference cycle it drops, and its memory grows until the system ends it.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            if gc.get_freeze_count() == 0:  # else they are the program's, which has frozen them on purpose
                gc.freeze()
                gc.unfreeze()  # to the old objects: the next collection would walk through them all as young ones
            gc.enable()
