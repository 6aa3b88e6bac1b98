"""Which engine runs a checkpoint: torch, or ONNX Runtime where it fits. Imports neither."""

from __future__ import annotations

import logging
import os
import platform
from pathlib import Path
from typing import Any

from qsit_plugin.checkpoint.onnx_record import has_graphs, read_record
from qsit_plugin.errors import WeightsError
from qsit_plugin.weights.folder import weight_bytes

from .installed import has_onnx, has_torch, require_engine, require_torch

log = logging.getLogger("qsit_plugin")

ENGINES = ("auto", "torch", "onnx")

SMALL = 1_000_000_000
"""Bytes of stored weights up to which a CPU runs in float32: above, float32 would double what must be read."""

_DRIVERS = ("/dev/nvidiactl", "/dev/nvidia0", "/dev/dxg", "/dev/kfd", "C:/Windows/System32/nvcuda.dll")
"""Where there is none of these (NVIDIA's on Linux, in WSL; AMD's; NVIDIA's on Windows), torch sees no CUDA device."""


def choose_engine(
    engine: str,
    folder: Path,
    *,
    device: Any = "auto",
    dtype: Any = "auto",
    adapter: Any = None,
    quantization: Any = None,
) -> str:
    """``"torch"`` or ``"onnx"``, for the arguments of ``load``.

    ``"auto"`` takes ONNX Runtime only where nothing differs but the time: the folder holds graphs that belong to its
    weights, onnxruntime is installed, and the model would run on a CPU in float32, with no adapter and no quantized
    weights. An engine that was named is never replaced.

    Raises:
        ValueError: an engine that is not known, or ``"onnx"`` with something that it cannot do.
        ModuleNotFoundError: the engine is not installed, or none; with the commands that install them.
        WeightsError: ``"onnx"`` for a folder without graphs, or whose graphs do not belong to it; a version of torch or
            transformers that the torch engine does not work with.
    """
    check_engine(engine, device, dtype, adapter, quantization)
    require_engine(engine)
    if engine == "onnx":
        read_record(folder)
    chosen = _automatic(folder, device, dtype, adapter, quantization) if engine == "auto" else engine
    if chosen == "torch":
        require_torch(f"{folder.name} {'with these options' if has_graphs(folder) else 'without ONNX graphs'}")
    return chosen


def _automatic(folder: Path, device: Any, dtype: Any, adapter: Any, quantization: Any) -> str:
    suited = _unsuited(device, dtype, adapter, quantization) is None and _is_float32(folder, dtype)
    if not suited or not has_graphs(folder) or not has_onnx():
        return "torch"
    try:
        read_record(folder)
    except WeightsError as error:
        if not has_torch():
            raise
        log.warning("%s. Going on with torch", error)
        return "torch"
    return "torch" if str(device) == "auto" and _is_accelerated() else "onnx"


def check_engine(engine: str, device: Any, dtype: Any, adapter: Any = None, quantization: Any = None) -> None:
    """Raise ValueError as ``choose_engine`` does, before a checkpoint is looked for."""
    if engine not in ENGINES:
        raise ValueError(f"engine {engine!r} is unknown; give one of {', '.join(ENGINES)}")
    reason = _unsuited(device, dtype, adapter, quantization) if engine == "onnx" else None
    if reason is not None:
        raise ValueError(f"engine 'onnx' runs on a CPU in float32: {reason}")


def _unsuited(device: Any, dtype: Any, adapter: Any, quantization: Any) -> str | None:
    """What the ONNX engine cannot do of what was asked for, with the cure; None where it can do all of it."""
    number = str(dtype).removeprefix("torch.")
    if str(device) not in ("auto", "cpu"):
        return f"give device 'cpu', not {str(device)!r}, or engine 'torch'"
    if number not in ("auto", "float32"):
        return f"give dtype 'float32', not {number!r}, or engine 'torch'"
    if adapter is not None:
        return "save the checkpoint with its adapter merged and export that one, or give engine 'torch'"
    if quantization is not None:
        return "leave quantization out, or give engine 'torch'"
    return None


def _is_float32(folder: Path, dtype: Any) -> bool:
    """Whether float32 was asked for, or is what ``"auto"`` takes for small weights (see devices.py)."""
    return str(dtype) != "auto" or weight_bytes(folder) < SMALL


def _is_accelerated() -> bool:
    """Whether ``device="auto"`` means something else than the CPU. Torch is asked, but imported only where a driver or
    an Apple processor says that it may know a device, and where it is installed."""
    apple = platform.system() == "Darwin" and platform.machine() == "arm64"
    if not apple and not any(os.path.exists(path) for path in _DRIVERS):
        return False
    if not has_torch():
        return False
    from .devices import resolve_device

    return resolve_device("auto").type != "cpu"
