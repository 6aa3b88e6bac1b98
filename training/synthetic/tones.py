"""Renderings of the distortions that degrade tones and colours: exposure, contrast, saturation, white balance, banding.

Each takes an RGB image, a strength in [0, 1] and a generator that picks the rendering, and returns an image of the same
size. See distortions.py.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image

from .pixels import LUMA, shifted, to_float, to_image


def underexposure(image: Image.Image, strength: float, rng: np.random.Generator) -> Image.Image:
    """Darker by a gain or by a gamma, to the same mean: what a strength costs does not depend on the rendering."""
    x = to_float(image)
    wanted = 12.0 ** -(0.1 + 0.9 * strength) * _mean(x)
    if rng.random() < 0.6:
        return to_image(_brought_to(wanted, x, lambda y, gain: y * gain, 0.0, 1.0))
    return to_image(_brought_to(wanted, x, lambda y, gamma: y**gamma, 12.0, 1.0))


def overexposure(image: Image.Image, strength: float, rng: np.random.Generator) -> Image.Image:
    """Brighter by a gain, a gamma or an offset, until a given share of the way to white is gone."""
    x, kind = to_float(image), rng.random()
    wanted = 1.0 - (1.0 - _mean(x)) * (0.92 - 0.72 * strength)
    if kind < 0.4:
        return to_image(_brought_to(wanted, x + 0.004, lambda y, gain: y * gain, 1.0, 60.0))
    if kind < 0.7:
        return to_image(_brought_to(wanted, x + 0.004, lambda y, gamma: y**gamma, 1.0, 0.02))
    return to_image(_brought_to(wanted, x, lambda y, lift: y + lift, 0.0, 1.0))


def _mean(x: np.ndarray) -> float:
    """Mean brightness of an image that is shown, on [0, 1]."""
    return float((x.clip(0.0, 1.0) @ LUMA).mean())


def _brought_to(
    wanted: float, x: np.ndarray, change: Callable[[np.ndarray, float], np.ndarray], low: float, high: float
) -> np.ndarray:
    """``change(x, amount)`` with the amount between ``low`` (darkest) and ``high`` that gives the mean, by bisection on
    a few of the pixels."""
    few = x[:: max(1, x.shape[0] // 48), :: max(1, x.shape[1] // 48)]
    for _ in range(14):
        middle = (low + high) / 2
        low, high = (middle, high) if _mean(change(few, middle)) < wanted else (low, middle)
    return change(x, (low + high) / 2)


def _contrasted(image: Image.Image, gain: float, rng: np.random.Generator) -> Image.Image:
    """Differences from the mean brightness, or from middle grey, times ``gain``."""
    x = to_float(image)
    anchor = float((x @ LUMA).mean()) if rng.random() < 0.6 else 0.5
    return to_image(anchor + (x - anchor) * gain)


def _saturated(image: Image.Image, gain: float, rng: np.random.Generator) -> Image.Image:
    """Differences of the channels from the pixel's grey times ``gain``."""
    x = to_float(image)
    grey = (x @ LUMA if rng.random() < 0.7 else x.mean(-1))[..., None]
    return to_image(grey + (x - grey) * gain)


def low_contrast(image: Image.Image, strength: float, rng: np.random.Generator) -> Image.Image:
    return _contrasted(image, 1 - 0.08 - 0.84 * strength, rng)


def faded_color(image: Image.Image, strength: float, rng: np.random.Generator) -> Image.Image:
    """Down to a tenth of the saturation: without any colour it is a black-and-white photo, and that is no fault."""
    return _saturated(image, 1 - 0.1 - 0.8 * strength, rng)


def banding(image: Image.Image, strength: float, rng: np.random.Generator) -> Image.Image:
    levels, kind = 2 + 26 * (1 - strength) ** 1.7, rng.random()
    if kind < 0.5:
        return to_image(np.round(to_float(image) * (round(levels) - 1)) / (round(levels) - 1))
    if kind < 0.75:
        step = 256 / round(levels)
        return Image.fromarray((np.asarray(image) // step * step).astype(np.uint8))  # keeps the top bits, as posterise
    colors = image.quantize(max(2, round(1.6 * levels)), method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    return colors.convert("RGB")


def oversaturation(image: Image.Image, strength: float, rng: np.random.Generator) -> Image.Image:
    return _saturated(image, 1.25 + 3.0 * strength, rng)


def harsh_contrast(image: Image.Image, strength: float, rng: np.random.Generator) -> Image.Image:
    """Light and dark tones are driven apart until both are lost."""
    return _contrasted(image, 1.3 + 3.7 * strength**1.3, rng)


def color_cast(image: Image.Image, strength: float, rng: np.random.Generator) -> Image.Image:
    """A wrong white balance: one or two channels are weakened or lifted."""
    x, amount = to_float(image), 0.06 + 0.5 * strength
    direction = np.array(
        [(1, 0, -1), (-1, 0, 1), (-0.5, 1, -0.5), (0.7, -1, 0.7), (0, 0.6, -1), (-1, 0.5, 0.5)], np.float32
    )[rng.integers(6)]
    if rng.random() < 0.5:
        return to_image(x * (1 + amount * direction))
    return to_image(x + 0.55 * amount * direction)


def color_fringes(image: Image.Image, strength: float, rng: np.random.Generator) -> Image.Image:
    """Red and blue are shifted against green, as a poor lens does towards the edges of its picture."""
    x, distance, angle = to_float(image), 1.0 + 7.0 * strength, rng.uniform(0.0, 2 * np.pi)
    y, right = round(distance * np.sin(angle)), round(distance * np.cos(angle))
    if y == right == 0:
        right = 1
    red, blue = shifted(x[..., 0], y, right), shifted(x[..., 2], -y, -right)
    return to_image(np.stack([red, x[..., 1], blue if rng.random() < 0.7 else x[..., 2]], -1))
