"""Cases that go wrong on purpose: what the guard has to notice. Number -> what the case does."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from pathlib import Path

from .case import Case, Fault

ALLOWED = ("KeyError",)


def prepare() -> None:
    """Nothing is shared."""


def case(number: int, seed: int) -> Case:
    does = CASES[number]
    return Case(does.__name__.strip("_"), does, ALLOWED)


def _ends_well(folder: Path) -> str:
    (folder / "damaged").write_text("kept")
    return "score 0.5"


def _raises_what_is_allowed(_: Path) -> str:
    raise KeyError("an allowed error whose text is long enough")


def _raises_something_else(_: Path) -> str:
    raise ZeroDivisionError("nobody expected this")


def _raises_in_half_a_word(_: Path) -> str:
    raise KeyError("no")


def _gives_a_wrong_result(_: Path) -> str:
    raise Fault("a score of NaN")


def _hangs(_: Path) -> str:
    while True:
        time.sleep(0.01)


def _crashes(_: Path) -> str:
    return ctypes.string_at(0).decode()


def _takes_memory_and_goes_on(_: Path) -> str:
    kept = [bytearray(b"x") * 2**24 for _ in range(64)]
    time.sleep(60)
    return str(len(kept))


def _takes_memory_for_a_moment(_: Path) -> str:
    return str(len(bytearray(b"x") * 2**29))


CASES: list[Callable[[Path], str]] = [
    _ends_well,
    _raises_what_is_allowed,
    _raises_something_else,
    _raises_in_half_a_word,
    _gives_a_wrong_result,
    _hangs,
    _crashes,
    _takes_memory_and_goes_on,
    _takes_memory_for_a_moment,
]
