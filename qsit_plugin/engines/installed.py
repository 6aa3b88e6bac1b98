"""Which engines are installed here, and what is said where one is not. Imports neither."""

from __future__ import annotations

import contextlib
import importlib.util
from importlib import metadata

from qsit_plugin.errors import WeightsError

ONNX = 'pip install "qsit-plugin[onnx]"'
TORCH = 'pip install "qsit-plugin[torch]"'

OLDEST_TORCH, OLDEST_TRANSFORMERS, REFUSED = "2.6", "4.57", "5.0.0"
"""4.49 to 4.51 of transformers mask images, 5.0.0 leaves a tied head random."""


def has_onnx() -> bool:
    return importlib.util.find_spec("onnxruntime") is not None


def has_torch() -> bool:
    """Whether there are both packages that the torch engine needs; their versions are another question."""
    return _missing() is None


def require_torch(wanted: str = "engine 'torch'") -> None:
    """Pass where the torch engine is installed in versions that it works with.

    pip does not guard them: torch and transformers are an extra, or come with ComfyUI or pyiqa. Their versions are read
    from their metadata, since importing old ones fails with names that they lack.

    Args:
        wanted: what needs it, for the message.

    Raises:
        ModuleNotFoundError: one of them is not installed; with the command that installs it.
        WeightsError: one is too old, or the version of transformers that loads checkpoints wrongly.
    """
    name = _missing()
    if name is not None:
        raise ModuleNotFoundError(f"{wanted} needs {name}, which is not installed: {TORCH}", name=name)
    for name in ("torch", "transformers"):
        try:
            check_version(name, metadata.version(name))
        except metadata.PackageNotFoundError:  # not installed by pip; opening a checkpoint looks at transformers again
            continue


def require_engine(engine: str) -> None:
    """Raise ModuleNotFoundError where the engine that was asked for, or with ``"auto"`` any, is not installed."""
    if engine == "torch":
        require_torch()
    elif engine == "onnx" and not has_onnx():
        text = f"engine 'onnx' needs onnxruntime, which is not installed: {ONNX}"
        raise ModuleNotFoundError(text, name="onnxruntime")
    elif not has_onnx() and not has_torch():
        raise ModuleNotFoundError(
            f"no engine is installed: {ONNX} (small; qsit-nano and checkpoints with ONNX graphs, on the CPU) or "
            f"{TORCH} (every checkpoint and device, gradients, adapters)",
            name="onnxruntime",
        )


def check_version(name: str, version: str) -> None:
    """Raise WeightsError for a version of torch or transformers that checkpoints are not read rightly with."""
    problem = version_problem(name, version)
    if problem is not None:
        raise WeightsError(f"the torch engine does not work with this {name}: {problem}")


def version_problem(name: str, version: str) -> str | None:
    """What is wrong with this version of torch or transformers, with the cure; None where nothing is known to be."""
    if name == "transformers" and version.split("+")[0] == REFUSED:
        allowed = f"transformers>={OLDEST_TRANSFORMERS},!={REFUSED}"
        return f"version {version} leaves lm_head random: pip install --upgrade '{allowed}'"
    floor = {"torch": OLDEST_TORCH, "transformers": OLDEST_TRANSFORMERS}.get(name)
    if floor is not None and _numbers(version) < _numbers(floor):
        return f"version {version} is too old: pip install --upgrade '{name}>={floor}'"
    return None


def versions() -> dict[str, str]:
    """Of the engines' packages that are installed, for a record."""
    found = {}
    for name in ("torch", "transformers", "onnxruntime"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("+")[0].split(".")[:2] if part.isdigit())


def _missing() -> str | None:
    return next((name for name in ("torch", "transformers") if importlib.util.find_spec(name) is None), None)
