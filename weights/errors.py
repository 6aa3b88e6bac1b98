"""The one error of everything that concerns checkpoints and their files."""

from __future__ import annotations


class WeightsError(RuntimeError):
    """A checkpoint that cannot be found, fetched, trusted or read; the message says what to do about it."""


def first_line(error: BaseException) -> str:
    """The first line of an error's text, for a message of one line."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
