"""The first import of torch and transformers, some 2,600 modules."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def without_collection() -> Iterator[None]:
    """No garbage collection inside; afterwards it is as it was.

    What is imported makes objects by the hundred thousand that all stay, and the collector would walk through them
    again and again to find nothing: a seventh of the processor time from the start of a process to its first score.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            if gc.get_freeze_count() == 0:  # else they are the program's, which has frozen them on purpose
                gc.freeze()
                gc.unfreeze()  # to the old objects: as young ones the next collection would walk through them all
            gc.enable()
