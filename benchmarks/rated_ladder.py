"""A small made-up dataset to try ``qsit bench accuracy`` on, without downloads (needs scikit-image).

    python benchmarks/rated_ladder.py ladder
    qsit bench accuracy --dataset csv --images ladder --annotations ladder/ratings.csv \\
        --group-column photo --distortion-column distortion --metrics qsit-nano,piqe --out ladder.json

Packaged photos of scikit-image at five rising strengths of three distortions. The "ratings" are 5 minus 0.8 a step:
nobody gave them, so the figures say whether a metric follows the strength of a distortion, not whether it agrees with
people.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

PHOTOS = ("astronaut", "cat", "coffee", "rocket")
STEPS = 5
JPEG_QUALITY = (40, 25, 15, 9, 5)


def make_ladder(folder: Path, *, photos: Sequence[str] = PHOTOS, side: int = 384, seed: int = 0) -> Path:
    """Write the images, reduced to ``side`` pixels at the longer side, and ``ratings.csv``; return its path."""
    from skimage import data

    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for photo in photos:
        picture = Image.fromarray(getattr(data, photo)()).convert("RGB")
        picture.thumbnail((side, side), Image.Resampling.LANCZOS)
        for distortion in ("blur", "noise", "jpeg"):
            for step in range(1, STEPS + 1):
                name = f"{photo}_{distortion}_{step}.png"
                distort(picture, distortion, step, rng).save(folder / name)
                rows.append((name, f"{5 - 0.8 * step:.1f}", photo, distortion))
    target = folder / "ratings.csv"
    with open(target, "w", encoding="utf-8", newline="") as stream:
        csv.writer(stream, lineterminator="\n").writerows([("image", "mos", "photo", "distortion"), *rows])
    return target


def distort(picture: Image.Image, kind: str, step: int, rng: np.random.Generator) -> Image.Image:
    """A copy of the picture, degraded with a strength from 1 to 5."""
    if kind == "blur":
        return picture.filter(ImageFilter.GaussianBlur(0.6 * step))
    if kind == "noise":
        pixels = np.asarray(picture, dtype=np.float32)
        return Image.fromarray((pixels + rng.normal(0, 8 * step, pixels.shape)).clip(0, 255).astype(np.uint8))
    buffer = BytesIO()
    picture.save(buffer, "JPEG", quality=JPEG_QUALITY[step - 1])
    return Image.open(buffer).convert("RGB")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python benchmarks/rated_ladder.py FOLDER")
    print(make_ladder(Path(sys.argv[1])))
