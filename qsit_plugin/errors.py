"""Every error that the package raises on purpose, under one base. Imports nothing, so that any module may use it.

``except qsit_plugin.QSiTError`` catches them all; each is also a built-in error (ValueError, RuntimeError …).
"""

from __future__ import annotations


class QSiTError(Exception):
    """The base. ``str(error)`` says what was given, why it cannot be used, and the cure."""


class WeightsError(QSiTError, RuntimeError):
    """A checkpoint that cannot be found, fetched, trusted or read; the message says what to do about it."""


class ProfileError(WeightsError, ValueError):
    """A profile that cannot be used: malformed, or not what the tokenizer of its checkpoint produces."""


class NonFiniteError(WeightsError, FloatingPointError):
    """Logits that are NaN or infinite: the weights are damaged, or too large for a dtype that the user chose."""


class ImageError(QSiTError, ValueError):
    """An input that cannot be used as an image. ``str(error)`` is one line: what was given, why not, and the cure."""

    def __init__(self, source: str, reason: str) -> None:
        source, reason = " ".join(source.split()), " ".join(reason.split())
        super().__init__(source, reason)  # both in args, so that the error survives pickling between processes
        self.source = source
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.source}: {self.reason}"


class ContextError(QSiTError, ValueError):
    """A prompt and an image that are together longer than what the language model can read."""


class LimitError(QSiTError, ValueError):
    """A limit on tiles or tokens that the checkpoint's grid cannot keep."""


class ForkedError(QSiTError, RuntimeError):
    """Inference on several CPU threads in a fork of a process that has run it: OpenMP would deadlock."""
