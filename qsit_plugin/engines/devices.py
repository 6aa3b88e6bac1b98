"""Device and dtype, and what ``"auto"`` means for each."""

from __future__ import annotations

import platform
import subprocess
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from .choice import SMALL

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def resolve_device(device: str | torch.device = "auto") -> torch.device:
    """``"auto"`` takes CUDA, then MPS, then the CPU. An explicit device is never changed, only checked.

    Raises:
        ValueError: not a device, or one that this machine does not have.
    """
    if isinstance(device, str) and device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        target = torch.device(device)
    except (RuntimeError, TypeError):
        raise ValueError(f"device {device!r} is unknown; give auto, cpu, cuda, cuda:N or mps") from None
    if target.type == "cuda" and (target.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"device {str(target)!r} is not here: torch {torch.__version__} sees {torch.cuda.device_count()} CUDA "
            "devices; give auto or cpu, or install a CUDA build of torch and its driver"
        )
    if target.type == "mps" and not torch.backends.mps.is_available():
        raise ValueError("device 'mps' is not here (it needs macOS on Apple silicon); give auto or cpu")
    return target


def resolve_dtype(
    dtype: str | torch.dtype = "auto", device: torch.device | None = None, weight_bytes: int = 0
) -> torch.dtype:
    """``"auto"``: float16 on CUDA and MPS, as published; on a CPU float32 if small, else bfloat16 where it is native.

    Args:
        weight_bytes: of the checkpoint's files. An explicit dtype is never changed.

    Raises:
        ValueError: a dtype that the model cannot run in.
    """
    if isinstance(dtype, torch.dtype):
        if dtype in DTYPES.values():
            return dtype
    elif dtype in DTYPES:
        return DTYPES[dtype]
    elif dtype == "auto":
        if device is not None and device.type in ("cuda", "mps"):
            return torch.float16
        return torch.bfloat16 if weight_bytes >= SMALL and cpu_has_bfloat16() else torch.float32
    raise ValueError(f"dtype {dtype!r} is not supported; give auto, {', '.join(DTYPES)} or the torch.dtype")


@lru_cache(maxsize=1)
def cpu_has_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 natively; without it bfloat16 is emulated, slower than float32."""
    system = platform.system()
    if system == "Linux":
        try:
            words = set(Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").split())
        except OSError:
            return False
        return not words.isdisjoint({"avx512_bf16", "amx_bf16", "bf16"})  # the last one is ARM's
    if system == "Darwin":
        query = ["sysctl", "-n", "hw.optional.arm.FEAT_BF16"]
        answer = subprocess.run(query, capture_output=True, text=True, check=False)
        return answer.stdout.strip() == "1"
    # Windows has no such query; torch reports x86 features since 2.9, and an unknown processor gets float32.
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return any(bool(capabilities.get(name)) for name in ("avx512_bf16", "amx_bf16", "bf16"))
