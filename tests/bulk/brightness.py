"""Stands in for the model where only the bookkeeping is looked at: a record made of the picture's mean brightness.

Run as a program, it scores a folder into a store with that, to be killed: STORE FOLDER [SECONDS an image].
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from qsit_plugin.bulk.inputs.sources import sources
from qsit_plugin.bulk.scoring import Counts, score_into
from qsit_plugin.bulk.store import Store
from qsit_plugin.images.errors import ImageError
from qsit_plugin.images.reading import read_image
from qsit_plugin.protocol import LEVELS
from qsit_plugin.scores import error_record

ABOUT = {
    "key": "0" * 16, "model": "brightness", "fingerprint": "0" * 12, "engine": "none", "dtype": "float32",
    "profile": "training", "mode": "", "scope": "brightness", "scope_kind": "other",
}  # fmt: skip


class Brightness:
    """``iter_records`` as ``Scorer`` has it; ``seen`` counts the images that it was given."""

    def __init__(self, seconds: float = 0.0):
        self.seen, self.seconds = 0, seconds

    def iter_records(self, images: Iterable[Any]) -> Iterator[dict[str, Any]]:
        for image in images:
            self.seen += 1
            time.sleep(self.seconds)
            try:
                picture = read_image(image)
            except ImageError as error:
                yield error_record(error)
                continue
            score = float(np.asarray(picture).mean() / 255)
            shares = dict.fromkeys(LEVELS, 0.2)
            width, height = picture.size
            yield {
                "score": score, "level": "fair", "probabilities": shares, "std": 0.1, "level_mass": 1.0,
                "width": width, "height": height, "dtype": "float32", "engine": "none", "mode": "released",
            }  # fmt: skip


def score(store: Any, folder: Any, *, about: dict[str, Any] = ABOUT, **options: Any) -> tuple[Counts, Brightness]:
    """Score a folder into a store: the counts, and the scorer with what it has seen."""
    scorer = Brightness()
    with Store(store, about) as opened:
        return score_into(opened, scorer, sources([str(folder)]), **options), scorer


if __name__ == "__main__":
    with Store(sys.argv[1], ABOUT) as opened:
        score_into(opened, Brightness(float((sys.argv[3:] or ["0"])[0])), sources([sys.argv[2]]))
