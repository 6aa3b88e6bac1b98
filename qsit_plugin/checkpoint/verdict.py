"""Golden values against what this machine computes: pass, drift or broken."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from qsit_plugin.engines.level_logits import iter_readings, to_score
from qsit_plugin.weights.golden import Golden, judge

if TYPE_CHECKING:
    from qsit_plugin.model import QSiT


@dataclass(frozen=True)
class Verdict:
    """One golden entry and the five level logits (excellent to bad) and score that came out here."""

    golden: Golden
    logits: tuple[float, ...]
    score: float
    word: str
    """``pass``, ``drift`` or ``broken``: the difference of the two scores."""


def with_image(goldens: Sequence[Golden], image: Path | None) -> list[tuple[Golden, Path]]:
    """Each golden entry with the picture to look at; an entry whose picture is not at hand is left out.

    An image that the user gives stands for those that are stored without one; where all have one, for theirs.
    """
    if image is None:
        return [(golden, golden.image) for golden in goldens if golden.image is not None]
    return [(golden, image) for golden in [g for g in goldens if g.image is None] or goldens]


def verdicts(model: QSiT, pairs: Sequence[tuple[Golden, Path]]) -> Iterator[Verdict]:
    """Look at each picture and judge. Raises ImageError for a picture that cannot be read."""
    for golden, image in pairs:
        reading = next(iter_readings(model, [image]))
        score = to_score(model, reading).value
        yield Verdict(golden, reading.logits, score, judge(score, golden))
