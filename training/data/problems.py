"""What is wrong with the rows of a file: counted by kind, with the first few of each in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

SHOWN = 5

MISSING_IMAGE = "missing image"
OUTSIDE_ROOT = "image outside the root"
BAD_ROW = "bad row"
OUT_OF_RANGE = "MOS out of range"
DISAGREEMENT = "text and level disagree"


@dataclass
class Problems:
    """``counts`` by kind, and ``examples``: the first five of each."""

    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def add(self, kind: str, what: str) -> None:
        self.counts[kind] += 1
        shown = self.examples.setdefault(kind, [])
        if len(shown) < SHOWN:
            shown.append(what)

    def __bool__(self) -> bool:
        return bool(self.counts)

    def total(self) -> int:
        return self.counts.total()

    def lines(self) -> Iterator[str]:
        """One line a kind, then its examples, indented."""
        for kind, count in self.counts.items():
            yield f"{kind}: {count:,}" + (f", the first {SHOWN}:" if count > SHOWN else ":")
            yield from (f"  {example}" for example in self.examples[kind])
