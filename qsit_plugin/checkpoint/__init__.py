"""A checkpoint folder: opened under checks, saved so that every transformers version reads it, adapted, quantized.

The names below are loaded when they are first used: a checkpoint that runs in ONNX Runtime is opened without torch and
transformers.
"""

from typing import TYPE_CHECKING, Any

__all__ = ["CHAT_TEMPLATE", "Checkpoint", "open_checkpoint", "quiet_transformers", "read_preprocessor", "save_portable"]

_SAVING = ("CHAT_TEMPLATE", "save_portable")

if TYPE_CHECKING:
    from .opening import Checkpoint, open_checkpoint, quiet_transformers, read_preprocessor
    from .saving import CHAT_TEMPLATE, save_portable


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(".saving" if name in _SAVING else ".opening", __name__), name)
    globals()[name] = value
    return value
