"""What a fuzz case is, and how its number and seed choose the damage.

A generator is a module of this folder with ``case(number, seed) -> Case``, ``prepare()``, which does what all cases
share, and ``NUMBER`` of cases for its short and long form. The same number and seed always give the same case, so a
failure can be run again alone: ``python -m tests.fuzz checkpoints --first 1234 --seed 0``.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Case:
    """One damaged input. ``run`` gets an empty folder, leaves the damaged files in it and returns what came out of
    them, as text; it raises a :class:`Fault` for a result that is wrong without an error."""

    label: str
    """The file, the place in it and the kind of damage."""
    run: Callable[[Path], str]
    allowed: tuple[str, ...]
    """Names of the exceptions in which a case may end, apart from a score."""


class Fault(AssertionError):
    """A result that no error announced and that is wrong all the same: a score of NaN, or code that ran."""


@dataclass(frozen=True)
class Damage:
    """One change to a folder. ``apply(folder, rng)`` makes it; whatever is left open comes from ``rng``."""

    label: str
    apply: Callable[[Path, random.Random], Any]


@dataclass(frozen=True)
class Family:
    """Damages of one kind, and how many of ``sum of shares`` consecutive cases come from it."""

    share: int
    damages: Sequence[Damage]


VALUES = "wrong values"
"""The family that every generator of folders has. Its damages write a whole file, so others can follow them."""


def rng_of(number: int, seed: int) -> random.Random:
    return random.Random(f"case {number} of seed {seed}")  # text is hashed the same way in every process


def chosen(families: Mapping[str, Family], number: int, seed: int) -> list[Damage]:
    """The damages of a case: one, and before it a wrong value somewhere where that one has been used before.

    Each family has its slots in a cycle, and its damages come in an order shuffled by the seed, so that a short run
    takes a sample of every family and a long one takes every damage in turn.
    """
    cycle = [name for name, family in families.items() for _ in range(family.share)]
    turn, slot = divmod(number, len(cycle))
    name = cycle[slot]
    family = families[name]
    index = turn * family.share + slot - cycle.index(name)
    order = _shuffled(len(family.damages), f"{name} {seed}")
    first = family.damages[order[index % len(order)]]
    if index < len(order):
        return [first]
    return [rng_of(number, seed).choice(families[VALUES].damages), first]


@cache
def _shuffled(count: int, seed: str) -> list[int]:
    order = list(range(count))
    random.Random(seed).shuffle(order)
    return order
