"""The boundary that turns errors of other libraries about checkpoint files into WeightsError."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from qsit_plugin.errors import WeightsError


def first_line(error: BaseException) -> str:
    """The first line of an error's text; at most 300 characters of it, as libraries quote what they read."""
    line = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return line if len(line) <= 300 else line[:297] + "..."


def short(value: Any) -> str:
    """A value as a message shows it: at most 80 characters."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


@contextmanager
def refusing(what: str, *kept: type[BaseException]) -> Iterator[None]:
    """The boundary around what other libraries make of a checkpoint's files: whatever fails inside is a WeightsError.

    transformers, tokenizers, peft and jinja2 raise what they happen to stumble over (KeyError, ZeroDivisionError,
    RecursionError, a panic of Rust that is no Exception), differently in each version. The cause stays chained.

    Args:
        what: how the message begins: which file, and that it cannot be used.
        kept: types that pass as they are, beside WeightsError, a lack of memory and a stop by the user.
    """
    try:
        yield
    except BaseException as error:
        if isinstance(error, (WeightsError, MemoryError, *kept)):
            raise
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise  # KeyboardInterrupt, SystemExit
        if type(error).__name__ == "OutOfMemoryError":  # torch's; torch is not imported for its name
            raise
        raise WeightsError(
            f"{what} ({type(error).__name__}: {first_line(error)}); copy or download it again"
        ) from error
