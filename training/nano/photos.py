"""Clean photos, split by photo, and the views that a processor would cut from their distorted versions."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from .architecture import TILE
from .distortions import LOG_RANGE, NAMES, camera_jpeg, distort, severity_score, visible_strength


def find(folder: str | Path) -> list[Path]:
    """All PNG and JPEG files below a folder, sorted by name."""
    files = sorted(p for p in Path(folder).rglob("*") if p.suffix.lower() in {".png", ".jpg", ".jpeg"})
    if not files:
        raise FileNotFoundError(f"no PNG or JPEG photo below {folder}; give a folder of clean photos")
    return files


def split(files: list[Path]) -> tuple[list[Path], list[Path]]:
    """(train, held out): one photo in eight is held out, by the hash of its file name, so the split never drifts."""
    held = [p for p in files if int(hashlib.sha256(p.stem.encode()).hexdigest(), 16) % 8 == 0]
    return [p for p in files if p not in held], held


def load(files: list[Path]) -> list[Image.Image]:
    """Decoded RGB photos, kept in memory: a 512² photo is 0.8 MB."""
    return [Image.open(p).convert("RGB") for p in files]


HARD = {"motion blur": 2.5, "compression artifacts": 4.0, "banding": 1.5, "pixelation": 1.2, "faded color": 1.2}
"""How much more often the tower is shown what it names worst."""

BLOCK = 8
"""Side of a JPEG block: half of the views are cut at a random place of that grid, as a fitted canvas cuts them."""

DOUBTFUL = {"motion blur": 1.4, "compression artifacts": 1.6, "banding": 1.3}
"""The same where the language model learns, milder: with HARD motion blur was said for blur, with equal ones the
reverse."""


@dataclass
class View:
    """One tile as the model sees it, with what was done to it."""

    pixels: np.ndarray  # uint8 (TILE, TILE, 3)
    name: str | None  # the distortion, None for a clean view
    visible: float  # its strength as far as this view shows it
    score: float  # synthetic severity score on [1, 5]


def _scale(rng: np.random.Generator) -> float:
    """View scale: often pixel for pixel; enlarged (between two grid points) or shrunk (large photos, base view)."""
    kind = rng.random()
    if kind < 0.45:
        return 1.0
    if kind < 0.67:
        return rng.uniform(1.0, 1.35)
    return rng.uniform(0.5, 1.0) if kind < 0.92 else rng.uniform(0.25, 0.5)


@dataclass
class Region:
    """A piece of a photo; what lies left of and above (x, y) is distorted with it and then cut off."""

    image: Image.Image
    x: int
    y: int
    scale: float  # pixels of the view per pixel of the photo


def _region(photo: Image.Image, rng: np.random.Generator) -> Region:
    """A region that fills one tile at some scale. Flat regions (sky) are mostly skipped: there is nothing to see."""
    for _ in range(4):
        scale = _scale(rng)
        squash = rng.uniform(1.0, 1.8) if rng.random() < 0.2 else 1.0  # the base view ignores the aspect ratio
        width, height = round(TILE / scale * squash), round(TILE / scale)
        if rng.random() < 0.5:
            width, height = height, width
        dx, dy = rng.integers(BLOCK, size=2) if rng.random() < 0.5 else (0, 0)
        width, height = min(width + dx, photo.width), min(height + dy, photo.height)
        x, y = rng.integers(photo.width - width + 1), rng.integers(photo.height - height + 1)
        image = photo.crop((x, y, x + width, y + height))
        if np.asarray(image.convert("L").resize((32, 32))).std() > 14:
            break
    if rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return Region(image, int(dx), int(dy), TILE / max(width - dx, height - dy))


def is_colorful(image: Image.Image) -> bool:
    """Whether fading the colours could be seen: mean saturation above a tenth."""
    return float(np.asarray(image.resize((32, 32)).convert("HSV"))[..., 1].mean()) > 25


def pick_name(image: Image.Image, rng: np.random.Generator, weights: dict[str, float]) -> str:
    """A distortion at random, weights 1 where none is given; never faded colour on a photo that has none."""
    shares = np.array([weights.get(name, 1.0) for name in NAMES])
    if not is_colorful(image):
        shares[NAMES.index("faded color")] = 0.0
    return NAMES[rng.choice(len(NAMES), p=shares / shares.sum())]


def _view(region: Region, name: str | None, strength: float, seed: int) -> View:
    rng, image = np.random.default_rng(seed), region.image
    if name is not None:
        changed = distort(image, name, strength, rng)
    else:
        changed = camera_jpeg(image, rng) if rng.random() < 0.3 else image
    inside = changed.crop((region.x, region.y, *changed.size))
    pixels = np.asarray(inside.resize((TILE, TILE), Image.Resampling.BICUBIC))
    visible = 0.0 if name is None else visible_strength(name, strength, region.scale)
    if name in LOG_RANGE and visible == 0.0 and name != "noise":
        return View(pixels, None, 0.0, severity_score(None, 0.0))
    return View(pixels, name, visible, severity_score(name, visible))


def sample_pair(
    photos: list[Image.Image], rng: np.random.Generator, weights: dict[str, float] = HARD
) -> tuple[View, View]:
    """The same region twice, under one distortion at two strengths (one in five times one of them is clean)."""
    region = _region(photos[rng.integers(len(photos))], rng)
    name, seed = pick_name(region.image, rng, weights), int(rng.integers(2**31))
    low, high = np.sort(rng.random(2))
    if rng.random() < 0.2:
        return _view(region, None, 0.0, seed), _view(region, name, high, seed)
    return _view(region, name, low, seed), _view(region, name, high, seed)
