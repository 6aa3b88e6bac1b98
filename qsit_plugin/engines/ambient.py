"""Isolation from the settings of the caller's process: autocast, inference mode, default device, forks.

Under ``torch.autocast`` a score would move by 1e-3 and still call itself float32, and a loss would have 16 bits.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import torch

from qsit_plugin.errors import ForkedError

_threads_of: int | None = None
"""The process in which inference has run on several CPU threads; a fork of it inherits the number."""


def without_autocast(device: torch.device) -> contextlib.AbstractContextManager[object]:
    """``torch.autocast`` switched off for the device, where it is on."""
    on = device.type != "meta" and torch.is_autocast_enabled(device.type)
    return torch.autocast(device.type, enabled=False) if on else contextlib.nullcontext()


@contextlib.contextmanager
def ordinary_tensors() -> Iterator[None]:
    """For opening a checkpoint: weights that a gradient may pass through, read on the CPU.

    Whatever ``torch.inference_mode`` and ``torch.set_default_device`` say outside.
    """
    with torch.inference_mode(False), torch.device("cpu"):
        yield


def check_fork() -> None:
    """To be called before the first tensor is computed.

    OpenMP's threads do not survive a fork, and the first parallel loop of the forked process waits for them (GNU's
    libgomp, which torch brings along on Linux).

    Raises:
        ForkedError: this process, which would use several threads, was forked from one that ran inference on several.
    """
    global _threads_of
    if torch.get_num_threads() == 1:
        return
    if _threads_of not in (None, os.getpid()):
        raise ForkedError(
            "this process was forked from one that has looked at images on several CPU threads, which a fork does not "
            "inherit: start it with multiprocessing's method 'spawn', or call torch.set_num_threads(1) in it first"
        )
    _threads_of = os.getpid()
