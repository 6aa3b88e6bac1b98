"""Renderings of the distortions that degrade detail: blur, noise, compression, displaced and lost pixels.

Each takes an RGB image, a strength in [0, 1] and a generator that picks the rendering, and returns an image of the same
size. See distortions.py.
"""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageFilter

from .pixels import shifted, to_float, to_image


def blur(image: Image.Image, strength: float, rng: np.random.Generator) -> Image.Image:
    sigma = 0.5 * 16.0**strength
    if rng.random() < 0.3:
        return image.filter(ImageFilter.BoxBlur(sigma * 1.5))  # a box of radius 1.5 sigma spreads about as far
    return image.filter(ImageFilter.GaussianBlur(sigma))


def motion_blur(image: Image.Image, strength: float, rng: np.random.Generator) -> Image.Image:
    length = 3.0 * 11.0**strength
    angle = rng.choice([0.0, np.pi / 2]) if rng.random() < 0.4 else rng.uniform(0.0, np.pi)
    steps = np.arange(round(length)) - (round(length) - 1) / 2
    pad = int(np.ceil(length / 2)) + 1
    source = np.pad(np.asarray(image), ((pad, pad), (pad, pad), (0, 0)), mode="edge")
    total = np.zeros((image.height, image.width, 3), np.uint32)
    for step in steps:
        y, x = pad + round(step * np.sin(angle)), pad + round(step * np.cos(angle))
        total += source[y : y + image.height, x : x + image.width]
    return Image.fromarray((total / len(steps) + 0.5).astype(np.uint8))


def noise(image: Image.Image, strength: float, rng: np.random.Generator) -> Image.Image:
    x, sigma, kind = to_float(image), 3.0 * 27.0**strength / 255.0, rng.random()
    if kind < 0.6:
        x = x + rng.standard_normal(x.shape, np.float32) * sigma
    elif kind < 0.8:
        x = x + rng.standard_normal((*x.shape[:2], 1), np.float32) * sigma  # the same in all channels: grain
    else:
        x = x + rng.standard_normal(x.shape, np.float32) * np.sqrt(x + 0.02) * sigma * 1.6  # shot noise
    return to_image(x)


def compression_artifacts(image: Image.Image, strength: float, rng: np.random.Generator) -> Image.Image:
    if rng.random() < 0.75:
        return encoded(image, "JPEG", quality=round(3 + 57 * (1 - strength) ** 1.4))
    return encoded(image, "WEBP", quality=round(50 * (1 - strength) ** 1.6), method=2)


def encoded(image: Image.Image, form: str, **options: int) -> Image.Image:
    """The image after lossy compression by Pillow's encoder of this format."""
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return Image.open(buffer).convert("RGB")


def as_file(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """The compression of an ordinary photo file: no distortion, since people do not see it. Any view may have it, clean
    or not: a nano that saw it on clean views alone took a JPEG for cleaner than its lossless original."""
    if rng.random() < 0.3:
        return encoded(image, "WEBP", quality=int(rng.integers(86, 96)), method=2)
    return encoded(image, "JPEG", quality=int(rng.integers(86, 98)), subsampling=2 if rng.random() < 0.5 else 0)


def pixelation(image: Image.Image, strength: float, rng: np.random.Generator) -> Image.Image:
    block = 1.8 * 11.0**strength
    small = (max(1, round(image.width / block)), max(1, round(image.height / block)))
    shrink = Image.Resampling.BOX if rng.random() < 0.7 else Image.Resampling.NEAREST
    return image.resize(small, shrink).resize(image.size, Image.Resampling.NEAREST)


def impulse_noise(image: Image.Image, strength: float, rng: np.random.Generator) -> Image.Image:
    """Salt and pepper: in all channels at once, or in each on its own."""
    x = to_float(image)
    shape = (*x.shape[:2], 1) if rng.random() < 0.6 else x.shape
    hit = rng.random(shape) < 0.002 * 100.0**strength
    return to_image(np.where(hit, (rng.random(shape) < 0.5).astype(np.float32), x))


def oversharpening(image: Image.Image, strength: float, rng: np.random.Generator) -> Image.Image:
    radius = rng.uniform(1.0, 2.5)
    soft = to_float(image.filter(ImageFilter.GaussianBlur(radius)))
    x = to_float(image)
    return to_image(x + (x - soft) * 0.8 * 9.0**strength)


def jitter(image: Image.Image, strength: float, rng: np.random.Generator) -> Image.Image:
    """Every pixel is fetched from a random place nearby."""
    x, reach = np.asarray(image), 1.0 * 7.0**strength
    rows, columns = np.mgrid[: image.height, : image.width]
    dy, dx = (np.rint(rng.uniform(-reach, reach, rows.shape)).astype(int) for _ in range(2))
    return Image.fromarray(x[(rows + dy).clip(0, image.height - 1), (columns + dx).clip(0, image.width - 1)])


def ghosting(image: Image.Image, strength: float, rng: np.random.Generator) -> Image.Image:
    """A second, shifted exposure shines through."""
    x, angle, distance = to_float(image), rng.uniform(0.0, 2 * np.pi), rng.uniform(4.0, 16.0)
    ghost = shifted(x, round(distance * np.sin(angle)), round(distance * np.cos(angle)))
    share = 0.12 + 0.38 * strength
    return to_image(x * (1 - share) + ghost * share)


def missing_blocks(image: Image.Image, strength: float, rng: np.random.Generator) -> Image.Image:
    """Square blocks are lost in transmission: grey, black, or filled with the block beside them."""
    x, side, kind = np.array(image), int(rng.integers(8, 25)), rng.random()
    rows, columns = -(-image.height // side), -(-image.width // side)
    lost = rng.random((rows, columns)) < 0.01 * 22.0**strength
    lost[rng.integers(rows), rng.integers(columns)] = True  # at least one, however small the image
    for row, column in zip(*lost.nonzero(), strict=True):
        place = np.s_[row * side : (row + 1) * side, column * side : (column + 1) * side]
        if kind < 0.6:
            x[place] = 128 if kind < 0.35 else 0
        else:
            height, width = x[place].shape[:2]
            y, left = rng.integers(image.height - height + 1), rng.integers(image.width - width + 1)
            x[place] = x[y : y + height, left : left + width].copy()
    return Image.fromarray(x)


def stripes(image: Image.Image, strength: float, rng: np.random.Generator) -> Image.Image:
    """Rows or columns of different brightness, at random or in waves, as a bad sensor or cable gives them."""
    x, height = to_float(image), 4.0 * 15.0**strength / 255.0
    length = image.height if rng.random() < 0.5 else image.width
    across = length == image.height
    if rng.random() < 0.6:
        line = rng.standard_normal(length).astype(np.float32) * 0.8
    else:
        line = np.sin(2 * np.pi * np.arange(length) / rng.uniform(3.0, 12.0) + rng.uniform(0, 6)).astype(np.float32)
    return to_image(x + (line[:, None, None] if across else line[None, :, None]) * height)
