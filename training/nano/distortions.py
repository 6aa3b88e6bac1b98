"""Ten synthetic distortions with a continuous strength: what qsit-nano learns to see, name and grade.

Every distortion has several renderings (JPEG and WebP, Gaussian and disc blur, …), so that the model learns the defect
and not one formula. Ranges follow the families of KADID-10k and ARNIQA, widened at both ends; the code is our own and
needs numpy and Pillow only.
"""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageFilter

NAMES = (
    "blur",
    "motion blur",
    "noise",
    "compression artifacts",
    "underexposure",
    "overexposure",
    "low contrast",
    "faded color",
    "banding",
    "pixelation",
)
"""The ten names, in the order that DESIGN fixes; every index into a distortion refers to this order."""

LUMA = np.array([0.299, 0.587, 0.114], np.float32)


def to_float(image: Image.Image) -> np.ndarray:
    """Float32 (H, W, 3) in [0, 1]."""
    return np.asarray(image, np.float32) / 255.0


def to_image(array: np.ndarray) -> Image.Image:
    """RGB image of a float (H, W, 3) array; values are clipped to [0, 1] and rounded."""
    return Image.fromarray((array.clip(0.0, 1.0) * 255.0 + 0.5).astype(np.uint8))


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
    if kind < 0.5:
        x = x + rng.standard_normal(x.shape, np.float32) * sigma
    elif kind < 0.7:
        x = x + rng.standard_normal((*x.shape[:2], 1), np.float32) * sigma  # the same in all channels: grain
    elif kind < 0.85:
        x = x + rng.standard_normal(x.shape, np.float32) * np.sqrt(x + 0.02) * sigma * 1.6  # shot noise
    else:
        hit = rng.random(x.shape[:2]) < 0.002 * 100.0**strength  # salt and pepper
        x = np.where(hit[..., None], (rng.random((*x.shape[:2], 1)) < 0.5).astype(np.float32), x)
    return to_image(x)


def compression_artifacts(image: Image.Image, strength: float, rng: np.random.Generator) -> Image.Image:
    buffer = io.BytesIO()
    if rng.random() < 0.75:
        image.save(buffer, "JPEG", quality=round(3 + 57 * (1 - strength) ** 1.4))
    else:
        image.save(buffer, "WEBP", quality=round(50 * (1 - strength) ** 1.6), method=2)
    return Image.open(buffer).convert("RGB")


def camera_jpeg(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """The compression of an ordinary photo file, quality 88 to 96: no distortion, since people do not see it."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=int(rng.integers(88, 97)))
    return Image.open(buffer).convert("RGB")


def underexposure(image: Image.Image, strength: float, rng: np.random.Generator) -> Image.Image:
    x, kind = to_float(image), rng.random()
    if kind < 0.4:
        return to_image(x * 12.0 ** -(0.1 + 0.9 * strength))
    if kind < 0.7:
        return to_image(x ** (1.2 + 3.6 * strength))
    return to_image(x * 2.0 ** (-(0.4 + 5.0 * strength) / 2.2))  # stops of light, display gamma 2.2


def overexposure(image: Image.Image, strength: float, rng: np.random.Generator) -> Image.Image:
    x, kind = to_float(image), rng.random()
    if kind < 0.4:
        return to_image(x * (1.15 + 3.0 * strength))
    if kind < 0.7:
        return to_image(x ** (1 / (1.2 + 3.0 * strength)) + 0.1 * strength)
    return to_image(x + 0.08 + 0.6 * strength)


def low_contrast(image: Image.Image, strength: float, rng: np.random.Generator) -> Image.Image:
    x = to_float(image)
    anchor = float((x @ LUMA).mean()) if rng.random() < 0.6 else 0.5
    return to_image(anchor + (x - anchor) * (1 - 0.08 - 0.84 * strength))


def faded_color(image: Image.Image, strength: float, rng: np.random.Generator) -> Image.Image:
    x = to_float(image)
    grey = (x @ LUMA if rng.random() < 0.7 else x.mean(-1))[..., None]
    return to_image(grey + (x - grey) * (1 - 0.1 - 0.9 * strength))


def banding(image: Image.Image, strength: float, rng: np.random.Generator) -> Image.Image:
    levels, kind = 2 + 26 * (1 - strength) ** 1.7, rng.random()
    if kind < 0.5:
        return to_image(np.round(to_float(image) * (round(levels) - 1)) / (round(levels) - 1))
    if kind < 0.75:
        step = 256 / round(levels)
        return Image.fromarray((np.asarray(image) // step * step).astype(np.uint8))  # keeps the top bits, as posterise
    colors = image.quantize(max(2, round(1.6 * levels)), method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    return colors.convert("RGB")


def pixelation(image: Image.Image, strength: float, rng: np.random.Generator) -> Image.Image:
    block = 1.8 * 11.0**strength
    small = (max(1, round(image.width / block)), max(1, round(image.height / block)))
    shrink = Image.Resampling.BOX if rng.random() < 0.7 else Image.Resampling.NEAREST
    return image.resize(small, shrink).resize(image.size, Image.Resampling.NEAREST)


APPLY: dict[str, Callable[[Image.Image, float, np.random.Generator], Image.Image]] = dict(
    zip(
        NAMES,
        (
            blur,
            motion_blur,
            noise,
            compression_artifacts,
            underexposure,
            overexposure,
            low_contrast,
            faded_color,
            banding,
            pixelation,
        ),
        strict=True,
    )
)

HARM = dict(zip(NAMES, (1.0, 0.95, 0.95, 0.95, 0.9, 0.85, 0.75, 0.6, 0.8, 0.95), strict=True))
"""How far the strongest rendering lowers the synthetic severity score, as a share of the whole scale."""

LOG_RANGE = {"blur": 16.0, "motion blur": 11.0, "noise": 27.0, "pixelation": 11.0}
"""Largest over smallest extent (in pixels or grey levels), for the distortions that a smaller view hides."""


def distort(image: Image.Image, name: str, strength: float, rng: np.random.Generator) -> Image.Image:
    """Render one distortion. ``strength`` in [0, 1]; ``rng`` picks the rendering and its noise.

    The same seed and another strength give the same rendering, stronger or weaker: a ladder.
    """
    if name not in APPLY:
        raise ValueError(f"unknown distortion {name!r}; known: {', '.join(NAMES)}")
    if not 0.0 <= strength <= 1.0:
        raise ValueError(f"strength must be in [0, 1], got {strength}")
    return APPLY[name](image, float(strength), rng)  # Pillow takes no numpy scalar


def visible_strength(name: str, strength: float, scale: float) -> float:
    """Strength that is left when the view shows the image at ``scale`` (1 = pixel for pixel, 0.5 = half size).

    Labels follow the view: a one-pixel blur is gone at half size, for people as for the model.
    """
    if scale >= 1.0:
        return strength
    if name in LOG_RANGE:
        return max(0.0, strength + np.log(scale) / np.log(LOG_RANGE[name]))
    return strength * scale**0.5 if name == "compression artifacts" else strength


def severity_score(name: str | None, strength: float) -> float:
    """The synthetic severity score on [1, 5], 5 = clean. It orders strengths; nobody gave it, so it is never "MOS"."""
    if name is None:
        return 4.9
    return 4.9 - 3.9 * HARM[name] * (0.06 + 0.94 * strength**0.9 if strength > 0 else 0.0)
