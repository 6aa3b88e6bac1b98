"""What a nano is worth to people, through the public interface: rank correlations with their ratings, the faults that a
nano of synthetic distortions alone had, and words that contradict the score.

- Ratings: validation parts of BIQ2021 (cut by scene) and of LIVE-C, or once, at the end, the test parts.
- Compressed: photos of a lossless original of which a JPEG of quality 95 or a WebP of 90 scores higher by more than
  GAIN.
- Grey and framed: how much lower the same photos score in black and white, and inside a wide black frame.
- Words: photos scored fair, poor or bad of which the explanation says that nothing is wrong, and photos scored
  excellent of which it names a strong distortion.
"""

from __future__ import annotations

import json as json_module
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

import qsit_plugin

from ...synthetic.detail import encoded
from ...synthetic.photos import find, load, split
from .rated import Rated, read, read_and_cut, within_subsets
from .readout import drawn

GAIN = 0.01
FRAME = 0.25
"""Width of the frame, as a share of the photo's shorter side."""

NOTHING, STRONG = "No distortion", ("strongly visible", "severe")
"""What an explanation says of a clean photo, and of a strong distortion; see synthetic/text.py."""


def scores(model: Any, images: Sequence[Any]) -> np.ndarray:
    """(N,) scores of images, paths or pictures."""
    return np.array([score.value for score in model.iter_scores(images)])


def faults(model: Any, images: Sequence[Image.Image]) -> dict[str, Any]:
    """Compressed, grey and framed, of clean photos."""
    plain = scores(model, images)
    found: dict[str, Any] = {"photos": len(images), "mean": round(float(plain.mean()), 3)}
    for form, quality in (("JPEG", 95), ("WEBP", 90)):
        gains = scores(model, [encoded(image, form, quality=quality) for image in images]) - plain
        found[f"{form} {quality} above lossless"] = int((gains > GAIN).sum())
    grey = plain - scores(model, [image.convert("L").convert("RGB") for image in images])
    framed = plain - scores(model, [ImageOps.expand(i, round(FRAME * min(i.size)), (0, 0, 0)) for i in images])
    for name, drops in (("black and white", grey), ("framed", framed)):
        found[name] = {"mean drop": round(float(drops.mean()), 3), "largest": round(float(drops.max()), 3)}
    return found


def words(model: Any, paths: Sequence[Path]) -> dict[str, int]:
    """How many of the photos scored fair, and scored poor or bad, are said to show nothing, and of those scored
    excellent a strong distortion."""
    found = {"photos": len(paths), "fair": 0, "fair and nothing": 0, "poor or bad": 0, "of them nothing": 0}
    found |= {"excellent": 0, "of them strong": 0}
    for path in paths:
        look = model.encode(path)
        level = look.score().level
        if level == "good":
            continue
        said = look.explain().text
        if level == "excellent":
            found["excellent"] += 1
            found["of them strong"] += any(word in said for word in STRONG)
            continue
        group, nothing = ("fair", "fair and nothing") if level == "fair" else ("poor or bad", "of them nothing")
        found[group] += 1
        found[nothing] += said.startswith(NOTHING)
    return found


def ratings(model: Any, rated: Sequence[Rated], unseen: Sequence[Rated], part: str) -> dict[str, Any]:
    """Rank correlations of a part of both databases; of BIQ2021's test also without twins."""
    asked, away = ([photo for photo in some if photo.part == part] for some in (rated, unseen))
    values = scores(model, [photo.path for photo in asked])
    found: dict[str, Any] = {"rated": within_subsets(asked, values)}
    if part == "test":
        found["without twins"] = within_subsets(asked, values, lambda photo: not photo.twin)
    if away:
        found["unseen"] = within_subsets(away, scores(model, [photo.path for photo in away]))["all"]
    return found


def measure(
    rated: Path,
    thumbnails: Path,
    photos: Path,
    unseen: Path | None = None,
    checkpoint: str = "qsit-nano",
    part: str = "validation",
    explained: int = 300,
    json: Path | None = None,
) -> dict[str, Any]:
    """Print and return all of it; words on the first ``explained`` photos by the hash of their names."""
    if part not in ("validation", "test"):
        raise SystemExit(f"--part must be validation or test, got {part}")
    model, people = qsit_plugin.load(checkpoint), read_and_cut(rated, thumbnails)
    found = {"checkpoint": checkpoint, "part": part} | ratings(model, people, read(unseen) if unseen else [], part)
    print(json_module.dumps(found), flush=True)
    found["faults"] = faults(model, load(split(find(photos))[1]))
    print(json_module.dumps(found["faults"]), flush=True)
    asked = drawn([photo for photo in people if photo.part == part], explained)
    found["words"] = words(model, [photo.path for photo in asked])
    print(json_module.dumps(found["words"]), flush=True)
    if json:
        json.write_text(json_module.dumps(found, indent=2) + "\n", encoding="utf-8")
    return found
