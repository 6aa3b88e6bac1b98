"""ONNX Runtime: a graph with its weights, ready to run on the CPU, and threads that run it side by side."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from qsit_plugin.errors import ForkedError
from qsit_plugin.parallel import in_order
from qsit_plugin.weights.errors import refusing

from .cores import usable_cores

if TYPE_CHECKING:
    from onnxruntime import OrtValue

OLDEST = "1.23"
"""The first onnxruntime in which the engine was tested."""

TELEMETRY_SWITCH = "ORT_DISABLE_TELEMETRY"
"""Read by ONNX Runtime when it is loaded. Where the user has set it, it stays as it is."""

_NO_MEMORY = ("Failed to allocate memory", "bad_alloc")

Item = TypeVar("Item")
Result = TypeVar("Result")

ERRORS_ONLY = 3
"""Severity from which on ONNX Runtime writes to stderr; its warnings are about graphs, and no user's concern."""


def onnxruntime() -> ModuleType:
    """The package, without its telemetry: from 1.29 on it reports each session (names and hashes of the model, the
    hardware) to Microsoft and writes a device id below the home folder, also on Linux. Scoring a photo must not.

    Raises ModuleNotFoundError where it is not installed.
    """
    ours = TELEMETRY_SWITCH not in os.environ
    os.environ.setdefault(TELEMETRY_SWITCH, "1")
    import onnxruntime

    if ours:  # where the process has imported it before, the variable comes too late
        onnxruntime.disable_telemetry_events()
    return onnxruntime


_running: list[None] = []
"""As many as sessions are running in this process: appending and popping need no lock, which a fork could inherit."""

_forked_amid_work = False


def _begin_in_fork() -> None:
    """ONNX Runtime's own locks may be held by threads that this process has not got."""
    global _forked_amid_work
    _forked_amid_work = _forked_amid_work or bool(_running)
    _running.clear()


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_begin_in_fork)


class Session:
    """A graph whose weights were given; may be run by several threads at once."""

    def __init__(self, path: Path, graph: bytes, weights: Mapping[str, np.ndarray], threads: int):
        """
        Args:
            path: of the graph, for messages.
            weights: float32 values by name; copied once, and held as long as the session.

        Raises:
            WeightsError: the graph cannot be opened by this version of ONNX Runtime, or with these weights.
        """
        ort = onnxruntime()
        options = ort.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = threads, ERRORS_ONLY
        # Its threads wait for work asleep: on a busy machine those that spin take the core from the one they wait for.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._given = {name: to_value(values) for name, values in weights.items()}
        with refusing(f"{path} cannot be opened in ONNX Runtime {ort.__version__} (needs {OLDEST})"):
            options.add_external_initializers(list(self._given), list(self._given.values()))
            self._session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        self._path, self._threads, self._process = path, threads, os.getpid()

    def run(self, outputs: Sequence[str], inputs: Mapping[str, OrtValue]) -> list[OrtValue]:
        """
        Raises:
            ForkedError: in a fork of the process that opened the session, whose threads it has not got.
            MemoryError: there is not enough memory.
            WeightsError: the graph fails on these inputs, so it is not one that was exported here.
        """
        if self._process != os.getpid() and (self._threads > 1 or _forked_amid_work):
            raise ForkedError(
                "this process was forked from one that opened this model with the ONNX engine and has threads, or work "
                "in progress, that a fork does not inherit: start it with multiprocessing's method 'spawn', or open "
                "the model in it"
            )
        with refusing(f"{self._path} does not run"):
            _running.append(None)
            try:
                return self._session.run_with_ort_values(list(outputs), dict(inputs))
            except Exception as error:  # ONNX Runtime has no type of its own for this one
                if any(words in str(error) for words in _NO_MEMORY):
                    raise MemoryError(f"not enough memory to run {self._path.name}") from error
                raise
            finally:
                _running.pop()


class Workers:
    """Threads that each run a session of one thread.

    Several threads of one session share every operation and wait for each other at its end. The operations of a small
    model are too short for that: tiles and images that have a thread each are done sooner.
    """

    def __init__(self, threads: int):
        self.threads = threads
        self._here = threading.local()

    @property
    def alone(self) -> bool:
        """Whether work of this thread stays on it: it is one of several that work side by side, or the only one."""
        return self.threads < 2 or getattr(self._here, "alone", False)

    @contextmanager
    def staying(self) -> Iterator[None]:
        """What this thread asks for inside is computed on it alone."""
        before = getattr(self._here, "alone", False)
        self._here.alone = True
        try:
            yield
        finally:
            self._here.alone = before

    def ahead(self, work: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
        """``work`` on the items, side by side: each result in its turn, as soon as it is there. Who waits works too."""
        if self.alone or len(items) < 2:
            return map(work, items)
        helpers = min(self.threads, len(items)) - 1
        return in_order(work, items, threads=helpers, ahead=len(items), helping=True)


def to_value(array: np.ndarray) -> Any:
    """An array as ONNX Runtime takes it; contiguous ones are not copied."""
    return onnxruntime().OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array))


def cpu_threads() -> int:
    """Threads to compute on: ``OMP_NUM_THREADS`` where it is set, as for torch, else the cores of this process."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    return int(given) if given.isdigit() and int(given) > 0 else usable_cores()
