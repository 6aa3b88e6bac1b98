"""A checkpoint folder: opened under checks, saved so that every transformers version reads it, adapted, quantized."""

from .opening import Checkpoint, open_checkpoint, quiet_transformers, read_preprocessor
from .saving import CHAT_TEMPLATE, save_portable

__all__ = ["CHAT_TEMPLATE", "Checkpoint", "open_checkpoint", "quiet_transformers", "read_preprocessor", "save_portable"]
