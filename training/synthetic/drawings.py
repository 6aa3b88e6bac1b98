"""Drawings: flat shapes, lines, text and smooth shades, as screenshots, diagrams and cartoons have them.

They are clean pictures without the texture of photos. A nano that saw photos only calls their plain areas "banding" and
their hard edges "oversharpening".
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

SIDE = 512

FINER = 2
"""Drawn this much larger and shrunk, so that edges are smooth; one in four is not, as a screenshot is not."""

LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789      .,:"


def drawings(count: int, seed: int) -> list[Image.Image]:
    """``count`` RGB drawings of SIDE pixels."""
    return [drawing(np.random.default_rng([seed, number])) for number in range(count)]


def drawing(rng: np.random.Generator) -> Image.Image:
    """One of a few colours: a plain or shaded ground, shapes, and lines of text."""
    finer = 1 if rng.random() < 0.25 else FINER
    side = SIDE * finer
    colors = [_color(rng) for _ in range(int(rng.integers(3, 9)))]
    image = _ground(side, colors, rng)
    pen = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(4, 40))):
        _shape(pen, side, colors, rng)
    for _ in range(int(rng.integers(0, 12))):
        _text(pen, side, colors, rng)
    return image.resize((SIDE, SIDE), Image.Resampling.LANCZOS) if finer > 1 else image


Color = tuple[int, int, int]


def _color(rng: np.random.Generator) -> Color:
    red, green, blue = (int(c) for c in rng.integers(0, 256, 3))
    return red, green, blue


def _ground(side: int, colors: Sequence[Color], rng: np.random.Generator) -> Image.Image:
    """Paper white, one colour, or a shade from one to another."""
    kind = rng.random()
    if kind < 0.35:
        return Image.new("RGB", (side, side), (255, 255, 255))
    if kind < 0.65:
        return Image.new("RGB", (side, side), colors[0])
    ramp = np.linspace(0, 1, side, dtype=np.float32)[:, None, None]
    first, second = np.array(colors[:2], np.float32)
    shade = first * (1 - ramp) + second * ramp
    dither = rng.random((side, side, 1), np.float32)  # steps of one grey level are no banding
    return Image.fromarray((np.broadcast_to(shade, (side, side, 3)) + dither).clip(0, 255).astype(np.uint8))


def _shape(pen: ImageDraw.ImageDraw, side: int, colors: Sequence[Color], rng: np.random.Generator) -> None:
    color, kind = colors[int(rng.integers(len(colors)))], rng.random()
    x, y, width, height = (int(v) for v in (*rng.integers(-side // 8, side, 2), *rng.integers(4, side // 2, 2)))
    box, line = (x, y, x + width, y + height), int(rng.integers(1, 9))
    if kind < 0.3:
        pen.rectangle(box, fill=color)
    elif kind < 0.5:
        pen.ellipse(box, fill=color, outline=colors[0], width=line)
    elif kind < 0.65:
        pen.rounded_rectangle(box, radius=min(width, height) // 4, fill=color, outline=colors[-1], width=line)
    elif kind < 0.8:
        pen.polygon([tuple(p) for p in rng.integers(0, side, (int(rng.integers(3, 7)), 2)).tolist()], fill=color)
    else:
        pen.line([tuple(p) for p in rng.integers(0, side, (int(rng.integers(2, 6)), 2)).tolist()], color, line)


def _text(pen: ImageDraw.ImageDraw, side: int, colors: Sequence[Color], rng: np.random.Generator) -> None:
    size = int(side * rng.uniform(0.02, 0.12))
    words = "".join(LETTERS[n] for n in rng.integers(len(LETTERS), size=int(rng.integers(4, 40))))
    x, y = (int(v) for v in rng.integers(0, side * 3 // 4, 2))
    pen.text((x, y), words, fill=colors[int(rng.integers(len(colors)))], font=ImageFont.load_default(size))
