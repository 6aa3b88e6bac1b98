"""Augmentation of clean photos: composed of several, flipped, in another light.

A tower that sees a few hundred photos a thousand times overfits: it memorises the clean photos and takes an unknown
one's warm light, deep colours or sharp detail for degradation. What a view shows, and how it looks, must say nothing
about its quality.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from .pixels import to_float, to_image

PIECES = 2
"""The most pieces that are laid over an image."""

SMALLEST = 4.0
"""How far a piece is shrunk at most: more shows textures that no photo has."""

STILL_SHRUNK = 1.25
"""How far a piece is shrunk after it was turned: turned pixel for pixel it would be blurred."""

BORDER = 2
"""Pixels cut off inside the corners of a turned piece: there it is mixed with the black around it."""


GREY = 0.03
"""Share of the photos that become black and white before anything is done to them: that is no fault."""

FRAMED = 0.1
"""Share of the views on which a border lies."""


def augmented(image: Image.Image, photos: Sequence[Image.Image], rng: np.random.Generator, share: float) -> Image.Image:
    """The image as another clean one of its size; each of the three changes in ``share`` of the cases."""
    if rng.random() < share:
        for _ in range(int(rng.integers(1, PIECES + 1))):
            image = _pieced(image, photos[int(rng.integers(len(photos)))], rng)
    if rng.random() < share:
        image = _turned(image, rng)
    image = another_look(image, rng) if rng.random() < share else image
    return image.convert("L").convert("RGB") if share and rng.random() < GREY else image


def framed(image: Image.Image, rng: np.random.Generator, share: float = FRAMED, widest: float = 0.4) -> Image.Image:
    """In ``share`` of the cases with a plain border over one to four sides, each up to ``widest`` of the image: what is
    inside is as good as it was. Black and white borders are drawn most."""
    if rng.random() >= share:
        return image
    color = int(rng.choice([0, 0, 255, 255, 128]))
    plain = (color,) * 3 if rng.random() < 0.8 else tuple(int(c) for c in rng.integers(0, 256, 3))
    sides = rng.uniform(0.02, widest, 4) * (rng.random(4) < 0.6)
    left, top, right, bottom = (round(s * n) for s, n in zip(sides, image.size * 2, strict=True))
    result = Image.new("RGB", image.size, plain)
    result.paste(image.crop((left, top, image.width - right, image.height - bottom)), (left, top))
    return result


def _turned(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Upside down, or on its side where it is square."""
    if image.width != image.height or rng.random() < 0.5:
        return image.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    return image.transpose(Image.Transpose.TRANSPOSE)


def _pieced(image: Image.Image, photo: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Beyond a straight border, another photo, pixel for pixel or shrunk; nothing where that photo is too small, since
    to enlarge it would blur it."""
    piece = _piece(photo, image.size, rng)
    if piece is None:
        return image
    angle = rng.uniform(0.0, 2 * np.pi)
    across = (np.arange(image.width) - rng.uniform(0.25, 0.75) * image.width) * np.cos(angle)
    down = (np.arange(image.height) - rng.uniform(0.25, 0.75) * image.height) * np.sin(angle)
    beyond = (across[None] + down[:, None] + 0.5).clip(0.0, 1.0)  # one pixel wide: a border without stairs
    return Image.composite(piece, image, Image.fromarray((beyond * 255).astype(np.uint8)))


def _piece(photo: Image.Image, size: tuple[int, int], rng: np.random.Generator) -> Image.Image | None:
    """A part of the photo at this size, shrunk by up to SMALLEST, two times in five at any angle where that leaves it
    shrunk. A photo that is not twice as large goes on in its mirror images."""
    room = min(photo.width / size[0], photo.height / size[1])
    if room < 2.0 and rng.random() < 0.5:
        photo, room = _mirrored(photo), 2 * room
    if room < 1.0:
        return None
    scale = float(np.exp(rng.uniform(0.0, np.log(min(room, SMALLEST)))))
    width, height = int(size[0] * scale), int(size[1] * scale)
    x, y = (int(rng.integers(most)) for most in (photo.width - width + 1, photo.height - height + 1))
    part = (x, y, x + width, y + height)
    angle = rng.uniform(-45.0, 45.0)
    inside = _without_corners(size[0] / size[1], angle)
    if scale * inside < STILL_SHRUNK or rng.random() < 0.6:
        return photo.resize(size, Image.Resampling.BICUBIC, box=part)
    around = (round(size[0] * STILL_SHRUNK / inside), round(size[1] * STILL_SHRUNK / inside))
    turned = photo.resize(around, Image.Resampling.BICUBIC, box=part).rotate(angle, Image.Resampling.BICUBIC)
    left, top = (side * (1 - inside) / 2 + BORDER for side in around)
    return turned.resize(size, Image.Resampling.BICUBIC, box=(left, top, around[0] - left, around[1] - top))


def _without_corners(aspect: float, angle: float) -> float:
    """How much of the width and height of a picture stays filled when it is turned by an angle in degrees."""
    turn = np.radians(abs(angle))
    return 1.0 / float(np.cos(turn) + max(aspect, 1 / aspect) * np.sin(turn))


def _mirrored(photo: Image.Image) -> Image.Image:
    """Twice as wide and high: the photo and its mirror images right of and below it."""
    return Image.fromarray(np.pad(np.asarray(photo), ((0, photo.height), (0, photo.width), (0, 0)), mode="symmetric"))


def another_look(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """The photo as another camera or hour might have given it: a little more or less light, here and there, warmth,
    colour and contrast. No distortion, since every value is an ordinary one."""
    x = to_float(image)
    x = x ** np.float32(np.exp(rng.normal(0.0, 0.14)))
    x = x * (1 + rng.normal(0.0, 0.03, 3).astype(np.float32))
    grey = x.mean(-1, keepdims=True)
    x = grey + (x - grey) * np.float32(np.exp(rng.normal(0.0, 0.15)))
    x = 0.5 + (x - 0.5) * np.float32(np.exp(rng.normal(0.0, 0.07)))
    return to_image(x * _light(image.size, rng))


def _light(size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """(H, W, 1) gains, mean 1: light that falls unevenly."""
    field = Image.fromarray(np.exp(rng.normal(0.0, 0.08, (3, 3))).astype(np.float32))
    gains = np.asarray(field.resize(size, Image.Resampling.BICUBIC))
    return (gains / gains.mean())[..., None]
