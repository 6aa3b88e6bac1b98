"""Golden values: the level logits and score that a checkpoint must give on one image, to verify an installation."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from qsit_plugin.weights.errors import WeightsError, first_line, short
from qsit_plugin.weights.json_file import is_file_name, read_json

FILE_NAME = "golden.json"
PASS = 0.005
DRIFT = 0.05
"""Largest differences of scores in [0, 1]; 0.005 is what float16 rounding of the five logits can move."""

MOST = 16
"""Entries of a golden.json: each is an image to look at."""

Verdict = Literal["pass", "drift", "broken"]


@dataclass(frozen=True)
class Golden:
    """What a checkpoint gives on one image: five logits, excellent to bad, and the score in [0, 1]."""

    image: Path | None
    """Where the image lies; None when it is not distributed with the checkpoint."""
    logits: tuple[float, ...]
    score: float
    note: str = ""
    """Which image, and where the values come from."""

    def __post_init__(self) -> None:
        if len(self.logits) != 5 or not all(math.isfinite(value) for value in self.logits):
            raise WeightsError(f"a golden entry needs five finite logits, excellent to bad; got {self.logits}")
        if not 0 <= self.score <= 1:
            raise WeightsError(f"a golden score lies in [0, 1]; got {self.score}")


PUBLISHED = {
    "qsit-mini": Golden(
        image=None,
        logits=(11.953125, 9.390625, 11.0390625, 12.1015625, 15.3984375),
        score=0.045549712192942585,
        note="koniq_44009500.jpg (KonIQ-10k 44009500.jpg, 1024x768); float16, transformers 4.45; Q-SiT issue 12",
    )
}
"""Values that the checkpoints' authors published, by catalogue name."""


def goldens(folder: str | Path, name: str | None = None) -> list[Golden]:
    """The published values of a catalogue name, if any, and those of the folder's ``golden.json``, if it has one."""
    found = [PUBLISHED[name]] if name in PUBLISHED else []
    path = Path(folder) / FILE_NAME
    return found + (read_goldens(path) if path.is_file() else [])


def read_goldens(path: str | Path) -> list[Golden]:
    """The golden entries of a JSON file: one ``{"image", "logits", "score"}``, or ``{"goldens": [several]}``.

    ``image`` is a file name relative to the JSON file, or null. Raises WeightsError for a malformed file or an image
    that is not there.
    """
    path = Path(path)
    content = read_json(path)
    entries = content.get("goldens", [content])
    if not isinstance(entries, list) or len(entries) > MOST:
        raise WeightsError(f"{path}: goldens must be a list of at most {MOST} entries; got {short(entries)}")
    return [_parse(entry, path) for entry in entries]


def judge(score: float, golden: Golden) -> Verdict:
    """``pass`` within 0.005 of the golden score, ``drift`` within 0.05, else ``broken`` (a NaN, too)."""
    difference = abs(score - golden.score)
    if difference <= PASS:
        return "pass"
    return "drift" if difference <= DRIFT else "broken"


def _parse(entry: Any, path: Path) -> Golden:
    try:
        name = entry["image"]
        if name is not None and not is_file_name(name):
            raise ValueError(f"image must be the name of a file beside it, or null, not {short(name)}")
        image = None if name is None else path.parent / name
        golden = Golden(
            image=image,
            logits=tuple(float(value) for value in entry["logits"]),
            score=float(entry["score"]),
            note=str(entry.get("note", "")),
        )
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
        raise WeightsError(
            f"{path}: a golden entry is {{image, logits, score}} with five logits; got {short(entry)} "
            f"({first_line(error)})"
        ) from error
    if image is not None and not image.is_file():
        raise WeightsError(f"{path} names the image {image.name}, which is not beside it; copy the whole checkpoint")
    return golden
