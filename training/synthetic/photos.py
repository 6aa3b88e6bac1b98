"""Clean photos, split by photo, and the views that a processor would cut from their distorted versions."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from qsit_plugin.images.formats import SUFFIXES, suffix
from qsit_plugin.images.reading import read_image

from .augmentation import augmented, framed
from .detail import as_file
from .distortions import KINDS, NEEDS_COLOR, NEEDS_SHADES, Defect, distort, severity_score, visible_strength
from .pixels import TILE
from .vocabulary import column


def find(folder: str | Path) -> list[Path]:
    """All image files below a folder, sorted by name."""
    files = sorted(p for p in Path(folder).rglob("*") if suffix(p.name) in SUFFIXES)
    if not files:
        raise FileNotFoundError(f"no photo below {folder}; give a folder of clean photos")
    return files


def split(files: list[Path]) -> tuple[list[Path], list[Path]]:
    """(train, held out): one photo in eight is held out, by the hash of its file name, so the split never drifts."""
    held = [p for p in files if int(hashlib.sha256(p.stem.encode()).hexdigest(), 16) % 8 == 0]
    return [p for p in files if p not in held], held


def load(files: list[Path]) -> list[Image.Image]:
    """Decoded RGB photos, kept in memory: a 512² photo is 0.8 MB."""
    return [read_image(p) for p in files]


def load_split(folder: str | Path) -> tuple[list[Image.Image], list[Image.Image]]:
    """The decoded photos of a folder: those to train on, and those that are held out."""
    train, held = split(find(folder))
    return load(train), load(held)


BLOCK = 8
"""Side of a JPEG block: half of the views are cut at a random place of that grid, as a fitted canvas cuts them."""

HARD: dict[str, float] = column("tower")
"""Weights of the distortions for the tower: more of what it names worst. 1 where none is given."""

DOUBTFUL: dict[str, float] = column("language")
"""The same where the language model learns, milder; distortions.toml says why."""

CLEAN_PAIRS = 0.45
"""Share of the pairs that are a clean view against a distorted one."""

AS_FILE = 0.4
"""Share of the views that are compressed as a photo file is, clean or distorted."""

COMBINED = 0.2
"""Share of the views that carry a second distortion."""


@dataclass
class View:
    """One tile as the model sees it, with what was done to it."""

    pixels: np.ndarray  # uint8 (TILE, TILE, 3)
    defects: tuple[Defect, ...]  # the more harmful first; empty for a clean view
    score: float  # synthetic severity score on [1, 5]


def _scale(rng: np.random.Generator) -> float:
    """View scale: often pixel for pixel; enlarged (small photos, or between two grid points) or shrunk (large photos,
    base view)."""
    kind = rng.random()
    if kind < 0.42:
        return 1.0
    if kind < 0.60:
        return rng.uniform(1.0, 1.35)
    if kind < 0.68:
        return rng.uniform(1.35, 2.2)
    return rng.uniform(0.5, 1.0) if kind < 0.92 else rng.uniform(0.25, 0.5)


def _region(photo: Image.Image, rng: np.random.Generator) -> tuple[Image.Image, tuple[int, int], float]:
    """A region that fills one tile at some scale: the image, its corner (x, y), left of and above which it is distorted
    and then cut off, and pixels of the view per pixel of the photo. Flat regions (sky) are mostly skipped: there is
    nothing to see."""
    for _ in range(4):
        scale = _scale(rng)
        squash = rng.uniform(1.0, 1.8) if rng.random() < 0.2 else 1.0  # the base view ignores the aspect ratio
        width, height = round(TILE / scale * squash), round(TILE / scale)
        if rng.random() < 0.5:
            width, height = height, width
        dx, dy = rng.integers(BLOCK, size=2) if rng.random() < 0.5 else (0, 0)
        width, height = min(width + dx, photo.width), min(height + dy, photo.height)
        image = random_crop(photo, width, height, rng)
        if has_content(image):
            break
    if rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return image, (int(dx), int(dy)), TILE / max(width - dx, height - dy)


def random_crop(photo: Image.Image, width: int, height: int, rng: np.random.Generator) -> Image.Image:
    """A region of this size at a random place of a photo that is at least as large."""
    x, y = (int(rng.integers(most)) for most in (photo.width - width + 1, photo.height - height + 1))
    return photo.crop((x, y, x + width, y + height))


def crop_with_content(photo: Image.Image, width: int, height: int, rng: np.random.Generator, tries: int) -> Image.Image:
    """The first of ``tries`` random crops with something to see in it, or the last."""
    for _ in range(tries):
        region = random_crop(photo, width, height, rng)
        if has_content(region):
            break
    return region


def has_content(image: Image.Image) -> bool:
    """Whether there is anything in it that could be degraded: in plain sky or wall no blur is seen."""
    return float(np.asarray(image.convert("L").resize((32, 32))).std()) > 14


def is_colorful(image: Image.Image) -> bool:
    """Whether fading the colours could be seen: mean saturation above a tenth."""
    return float(np.asarray(image.resize((32, 32)).convert("HSV"))[..., 1].mean()) > 25


def is_drawn(image: Image.Image) -> bool:
    """Whether a few colours fill it, as in a drawing: fewer steps between tones could not be seen."""
    return image.resize((48, 48), Image.Resampling.NEAREST).getcolors(48) is not None


def pick_name(image: Image.Image, rng: np.random.Generator, weights: dict[str, float]) -> str:
    """A distortion at random, weights 1 where none is given; never one of colours on a photo that has none, nor one of
    shades on a drawing."""
    hidden = (() if is_colorful(image) else NEEDS_COLOR) + (NEEDS_SHADES if is_drawn(image) else ())
    shares = np.array([0.0 if name in hidden else weights.get(name, 1.0) for name in KINDS])
    return KINDS[rng.choice(len(KINDS), p=shares / shares.sum())]


Plan = tuple[tuple[str, float], ...]
"""What is done to a view, in this order: names and strengths."""


def pick_pair(image: Image.Image, rng: np.random.Generator, weights: dict[str, float], clean: float) -> list[Plan]:
    """Two plans for one region, the milder first: one distortion at two strengths, in ``clean`` of the cases nothing
    against one, mostly a mild one, since that is what is confused; in COMBINED of the others both under the same second
    one."""
    name = pick_name(image, rng, weights)
    low, high = (float(s) for s in np.sort(rng.random(2)))
    if rng.random() < clean:
        return [(), ((name, low),)]
    pair: list[Plan] = [((name, low),), ((name, high),)]
    if rng.random() > COMBINED:
        return pair
    other = pick_name(image, rng, {})
    if other == name:
        return pair
    second = (other, float(rng.random()))
    first = rng.random() < 0.5
    return [(second, *plan) if first else (*plan, second) for plan in pair]


def apply(image: Image.Image, plan: Plan, seed: int, file: bool | None = None) -> Image.Image:
    """The image under a plan, then compressed as photo files are: AS_FILE of all, or as ``file`` says. The same seed
    gives the same renderings at any strength, but not the same file: in a pair, that one is compressed says nothing."""
    for name, strength in plan:
        image = distort(image, name, strength, np.random.default_rng([seed, KINDS.index(name)]))
    rng = np.random.default_rng([seed, len(KINDS), *(round(1e6 * strength) for _, strength in plan)])
    drawn = rng.random() < AS_FILE
    return as_file(image, rng) if (drawn if file is None else file) else image


def defects_of(plan: Plan, scale: float) -> tuple[Defect, ...]:
    """What is left of a plan to be seen at ``scale``, the more harmful first."""
    defects = [Defect(name, float(visible_strength(name, strength, scale))) for name, strength in plan]
    return tuple(sorted((d for d in defects if d.visible > 0), key=lambda d: -d.harm))


def sample_pairs(
    photos: list[Image.Image],
    rng: np.random.Generator,
    weights: dict[str, float] = HARD,
    augmentation: float = 0.0,
    count: int = 1,
) -> Iterator[tuple[View, View]]:
    """``count`` pairs of views of one region, the milder view first. ``augmentation``: share of the
    regions that ``augmented`` changes."""
    region, corner, scale = _region(photos[rng.integers(len(photos))], rng)
    region = augmented(region, photos, rng, augmentation)
    frame = int(rng.integers(2**31))

    def view(plan: Plan, seed: int) -> View:
        inside = framed(apply(region, plan, seed).crop((*corner, *region.size)), np.random.default_rng(frame))
        defects = defects_of(plan, scale)
        return View(np.asarray(inside.resize((TILE, TILE), Image.Resampling.BICUBIC)), defects, severity_score(defects))

    for _ in range(count):
        seed = int(rng.integers(2**31))
        mild, strong = pick_pair(region, rng, weights, CLEAN_PAIRS)
        yield view(mild, seed), view(strong, seed)
