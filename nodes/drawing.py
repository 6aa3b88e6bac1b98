"""Scores drawn with Pillow alone: a contact sheet, and the colors of scores. Labels of pictures are in labels.py."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from qsit_plugin.nodes.records import Record

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont
    from PIL.ImageFont import ImageFont as BitmapFont

RED, YELLOW, GREEN = (215, 48, 39), (254, 224, 100), (26, 152, 80)
BACKGROUND, INK = (24, 24, 24), (240, 240, 240)


def color_of(value: float) -> tuple[int, int, int]:
    """Red at 0 over yellow to green at 1."""
    red, green, blue = colors_of(np.array([[value]]))[0, 0]
    return int(red), int(green), int(blue)


def colors_of(values: np.ndarray) -> np.ndarray:
    """(H, W) values in [0, 1] -> (H, W, 3) uint8 colours, as color_of."""
    stops = [0.0, 0.5, 1.0]
    channels = [np.interp(values, stops, [stop[i] for stop in (RED, YELLOW, GREEN)]) for i in range(3)]
    return np.rint(np.stack(channels, axis=-1)).astype(np.uint8)


def contact_sheet(
    pictures: Sequence[Image.Image], records: Sequence[Record], order: Sequence[int], columns: int, cell: int
) -> Image.Image:
    """All pictures in one image, each fitted into a square of ``cell`` pixels with its number and score below.

    ``order``: indices of the pictures in the order in which they are to stand; numbers stay those of the batch.
    """
    columns = min(columns, len(order))
    label, gap = max(14, cell // 10), 4
    rows = -(-len(order) // columns)
    size = (columns * (cell + gap) + gap, rows * (cell + label + gap) + gap)
    sheet = Image.new("RGB", size, BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    for place, index in enumerate(order):
        left, top = gap + place % columns * (cell + gap), gap + place // columns * (cell + label + gap)
        small = pictures[index].copy()
        small.thumbnail((cell, cell), Image.Resampling.LANCZOS)
        sheet.paste(small, (left + (cell - small.width) // 2, top + (cell - small.height) // 2))
        score = records[index]["score"]
        draw.text((left + 2, top + cell), f"{index + 1}: {score:.3f}", fill=color_of(score), font=font(label - 3))
    return sheet


def font(size: int) -> FreeTypeFont | BitmapFont:
    """Pillow's own font, readable at least."""
    return ImageFont.load_default(max(8, size))
