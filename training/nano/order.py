"""Ladders of plain, well-known operations, written anew beside the training program: are they in order?"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageFilter


def blurred(photo: Image.Image, sigma: float) -> Image.Image:
    return photo.filter(ImageFilter.GaussianBlur(sigma))


def noisy(photo: Image.Image, sigma: float) -> Image.Image:
    """Gaussian noise in grey levels."""
    noise = np.random.default_rng(7).normal(0.0, sigma, (photo.height, photo.width, 3))
    return Image.fromarray((np.asarray(photo) + noise).round().clip(0, 255).astype(np.uint8))


def as_jpeg(photo: Image.Image, quality: float) -> Image.Image:
    buffer = io.BytesIO()
    photo.save(buffer, "JPEG", quality=int(quality))
    return Image.open(buffer).convert("RGB")


def exposed(photo: Image.Image, stops: float) -> Image.Image:
    """More or less light: a gain of 2 ** stops in linear light, by the sRGB curve."""
    x = np.asarray(photo, np.float64) / 255
    linear = np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4) * 2.0**stops
    linear = linear.clip(0, 1)
    shown = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return Image.fromarray((shown * 255).round().astype(np.uint8))


LADDERS: dict[str, tuple[Callable[[Image.Image, float], Image.Image], tuple[float, ...]]] = {
    "blur": (blurred, (1.0, 2.0, 4.0, 8.0)),
    "noise": (noisy, (8.0, 16.0, 32.0, 64.0)),
    "JPEG": (as_jpeg, (40, 20, 10, 5)),
    "exposure": (exposed, (-1.5, -3.0, -4.5, -6.0)),
}
"""Operation and rising strengths: blur and noise by sigma (pixels, grey levels), JPEG by quality, exposure by stops."""


def without_mistake(model: Any, images: Sequence[Image.Image]) -> dict[str, float]:
    """Share of the photos whose scores fall at every one of the four steps from the clean photo on."""
    shares = {}
    for name, (change, strengths) in LADDERS.items():
        right = []
        for photo in images:
            values = [score.value for score in model.score([photo, *(change(photo, s) for s in strengths)])]
            right.append(all(a > b for a, b in zip(values, values[1:], strict=False)))
        shares[name] = float(np.mean(right))
    return shares
