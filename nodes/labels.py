"""The score of a picture as a label over one of its edges, or outside beside it; a legend for a quality map."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageDraw

from qsit_plugin.nodes.drawing import BACKGROUND, INK, color_of, colors_of, font
from qsit_plugin.nodes.records import Record

POSITIONS = ("bottom", "top", "below", "above", "right")
"""The first two cover an edge of the picture, the others lie outside."""
LONGEST = "0.000 excellent"


def labelled(picture: Image.Image, record: Record, position: str) -> Image.Image:
    """A copy with score and level as text and as a bar from red to green.

    ``"bottom"`` and ``"top"`` cover an edge and keep the size. ``"below"``, ``"above"`` and ``"right"`` make the
    picture larger, pictures of one size by the same amount.
    """
    if position == "right":
        return _beside(picture, _panel(record, picture.size))
    height = strip_height(picture.size)
    outside = position in ("below", "above")
    if not outside:
        height = min(height, picture.height)
    result = Image.new("RGB", (picture.width, picture.height + (height if outside else 0)), BACKGROUND)
    result.paste(picture, (0, height if position == "above" else 0))
    top = 0 if position in ("top", "above") else result.height - height
    result.paste(_strip(record, picture.width, height), (0, top))
    return result


def strip_height(size: tuple[int, int]) -> int:
    """Pixels of a label for a picture of (width, height): it grows with both sides, as long as its text fits in."""
    width, height = size
    strip = max(14, round(math.sqrt(width * height)) // 16)
    while strip > 14 and font(_letters(strip)).getlength(LONGEST) > width - 6:
        strip = max(14, strip * 9 // 10)
    return strip


def with_legend(picture: Image.Image) -> Image.Image:
    """A copy with the colors of 0 (bad) to 1 (good) as a bar on its right, as high as the picture."""
    size = max(10, round(math.sqrt(picture.width * picture.height)) // 28)
    face, gap, labels = font(size), size // 2, {1.0: "1.0 good", 0.5: "0.5", 0.0: "0.0 bad"}
    width = 3 * gap + size + math.ceil(max(face.getlength(text) for text in labels.values()))
    panel = Image.new("RGB", (width, picture.height), BACKGROUND)
    bar = colors_of(np.repeat(np.linspace(1.0, 0.0, picture.height)[:, None], size, axis=1))
    panel.paste(Image.fromarray(bar), (gap, 0))
    draw = ImageDraw.Draw(panel)
    for value, text in labels.items():
        top = round((1.0 - value) * (picture.height - size * 1.4))
        draw.text((2 * gap + size, top), text, fill=INK, font=face)
    return _beside(picture, panel)


def _letters(strip: int) -> int:
    """Size of the letters in a strip: above the bar, which takes its lowest fifth."""
    return strip - max(2, strip // 5) - 2


def _strip(record: Record, width: int, height: int) -> Image.Image:
    strip = Image.new("RGB", (width, height), BACKGROUND)
    draw, bar = ImageDraw.Draw(strip), max(2, height // 5)
    length = round(record["score"] * width)
    if length:
        draw.rectangle((0, height - bar, length - 1, height - 1), fill=color_of(record["score"]))
    draw.text((3, 0), f"{record['score']:.3f} {record['level']}", fill=INK, font=font(_letters(height)))
    return strip


def _panel(record: Record, size: tuple[int, int]) -> Image.Image:
    letters = _letters(strip_height(size))
    face, bar, gap = font(letters), max(2, letters // 2), max(3, letters // 4)
    panel = Image.new("RGB", (bar + 2 * gap + math.ceil(face.getlength("excellent")), size[1]), BACKGROUND)
    draw = ImageDraw.Draw(panel)
    length = round(record["score"] * size[1])
    if length:
        draw.rectangle((0, size[1] - length, bar - 1, size[1] - 1), fill=color_of(record["score"]))
    for line, text in enumerate((f"{record['score']:.3f}", record["level"])):
        draw.text((bar + gap, gap + line * round(letters * 1.3)), text, fill=INK, font=face)
    return panel


def _beside(picture: Image.Image, panel: Image.Image) -> Image.Image:
    result = Image.new("RGB", (picture.width + panel.width, picture.height), BACKGROUND)
    result.paste(picture, (0, 0))
    result.paste(panel, (picture.width, 0))
    return result
