"""What nano is worth: ladder correlation and naming on photos that it never saw, through the public interface.

    python -m qsit_plugin.training.nano.evaluate --photos FOLDER --checkpoint nano --json figures.json

A ladder is one photo, clean and at five rising strengths of one distortion: Spearman's correlation of score against
step, sign turned; a constant ladder counts 0. Mean over photos, then over distortions. Naming: the right one of the ten
names, chosen at the three strongest steps.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from . import photos
from .distortions import NAMES, distort
from .text import NAMING

STRENGTHS = (0.2, 0.4, 0.6, 0.8, 1.0)


def ladder(photo: Image.Image, name: str, seed: int) -> list[Image.Image]:
    """The clean photo and five rising strengths of one rendering of a distortion."""
    return [photo] + [distort(photo, name, s, np.random.default_rng(seed)) for s in STRENGTHS]


def rank_correlation(a: Sequence[float], b: Sequence[float]) -> float:
    """Spearman's correlation with mean ranks for ties; 0 where one side is constant."""

    def ranks(values: Sequence[float]) -> np.ndarray:
        array = np.asarray(values, float)
        return np.array([(array < v).sum() + ((array == v).sum() - 1) / 2 for v in array])

    x, y = ranks(a) - np.mean(ranks(a)), ranks(b) - np.mean(ranks(b))
    norm = float(np.sqrt((x**2).sum() * (y**2).sum()))
    return float((x * y).sum()) / norm if norm > 0 else 0.0


def evaluate(model: Any, images: Sequence[Image.Image], seed: int = 0) -> dict[str, Any]:
    """Figures of a ``QSiT`` on clean photos: per distortion and their mean."""
    table: dict[str, dict[str, float]] = {}
    for name in NAMES:
        ladders, named = [], []
        for number, photo in enumerate(images):
            if name == "faded color" and not photos.is_colorful(photo):
                continue
            steps = ladder(photo, name, seed * 1000 + number)
            values = [score.value for score in model.score(steps)]
            ladders.append(-rank_correlation(values, range(len(values))))
            named += [NAMES[int(np.argmax(model.choose(step, NAMING[0], NAMES)))] == name for step in steps[3:]]
        table[name] = {"ladder": float(np.mean(ladders)), "named": float(np.mean(named)), "photos": len(ladders)}
        print(f"{name:24s} ladder {table[name]['ladder']:.3f}  named {table[name]['named']:.3f}", flush=True)
    mean = {key: float(np.mean([row[key] for row in table.values()])) for key in ("ladder", "named")}
    print(f"{'mean':24s} ladder {mean['ladder']:.3f}  named {mean['named']:.3f}  ({len(images)} photos)", flush=True)
    return {"mean": mean, "per_distortion": table, "photos": len(images), "seed": seed}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", required=True, help="the folder that was trained on; its held-out photos are used")
    parser.add_argument("--all", action="store_true", help="use every photo of the folder, one never trained on")
    parser.add_argument("--checkpoint", default="qsit-nano")
    parser.add_argument("--limit", type=int, default=None, help="only so many photos")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", default=None, help="file for the figures")
    args = parser.parse_args()
    import qsit_plugin

    files = photos.find(args.photos)
    files = files if args.all else photos.split(files)[1]
    figures = evaluate(qsit_plugin.load(args.checkpoint), photos.load(files[: args.limit]), args.seed)
    if args.json:
        Path(args.json).write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
