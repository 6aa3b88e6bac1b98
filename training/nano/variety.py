"""More kinds of clean photo than there are photos: pieced together, turned, in another light.

A tower that sees a few hundred photos a thousand times knows them by heart: it tells a spoilt one from its memory of
the clean one, and blames an unknown photo for its own warm light, deep colours or sharp detail. What a view shows, and
how it looks, must say nothing about its quality.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from .pixels import to_float, to_image


def varied(image: Image.Image, photos: Sequence[Image.Image], rng: np.random.Generator, share: float) -> Image.Image:
    """The image as another clean one of its size; each of the three changes in ``share`` of the cases."""
    if rng.random() < share:
        image = _pieced(image, photos[int(rng.integers(len(photos)))], rng)
    if rng.random() < share:
        image = _turned(image, rng)
    return another_look(image, rng) if rng.random() < share else image


def _turned(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Upside down, or on its side where it is square."""
    if image.width != image.height or rng.random() < 0.5:
        return image.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    return image.transpose(Image.Transpose.TRANSPOSE)


def _pieced(image: Image.Image, photo: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Beyond a straight border, another photo, pixel for pixel or shrunk; nothing where that photo is too small, since
    to enlarge it would blur it."""
    largest = min(photo.width / image.width, photo.height / image.height)
    if largest < 1.0:
        return image
    scale = rng.uniform(1.0, min(largest, 2.5))
    width, height = int(image.width * scale), int(image.height * scale)
    x, y = rng.integers(photo.width - width + 1), rng.integers(photo.height - height + 1)
    piece = photo.crop((x, y, x + width, y + height)).resize(image.size, Image.Resampling.BICUBIC)
    angle = rng.uniform(0.0, 2 * np.pi)
    across = (np.arange(image.width) - rng.uniform(0.25, 0.75) * image.width) * np.cos(angle)
    down = (np.arange(image.height) - rng.uniform(0.25, 0.75) * image.height) * np.sin(angle)
    beyond = (across[None] + down[:, None] + 0.5).clip(0.0, 1.0)  # one pixel wide: a border without stairs
    return Image.composite(piece, image, Image.fromarray((beyond * 255).astype(np.uint8)))


def another_look(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """The photo as another camera or hour might have given it: a little more or less light, warmth, colour and
    contrast. No distortion, since every value is an ordinary one."""
    x = to_float(image)
    x = x ** np.float32(np.exp(rng.normal(0.0, 0.10)))
    x = x * (1 + rng.normal(0.0, 0.03, 3).astype(np.float32))
    grey = x.mean(-1, keepdims=True)
    x = grey + (x - grey) * np.float32(np.exp(rng.normal(0.0, 0.12)))
    return to_image(0.5 + (x - 0.5) * np.float32(np.exp(rng.normal(0.0, 0.06))))
