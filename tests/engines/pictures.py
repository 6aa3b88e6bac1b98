"""Pictures of many sizes and modes for the comparison of the engines, no two of them alike."""

from __future__ import annotations

import numpy as np
from PIL import Image

SIZES = [
    (1, 1), (4000, 31), (31, 2500), (1, 3000), (2, 2), (100, 100), (127, 129), (128, 128), (129, 64), (200, 150),
    (256, 256), (300, 451), (384, 384), (385, 384), (500, 90), (512, 512), (640, 480), (90, 700), (1024, 768),
    (2400, 1800),
]  # fmt: skip
MORE_SIZES = [
    (4000, 3000), (3000, 4000), (1, 2), (3, 1), (7, 5), (13, 400), (33, 33), (63, 64), (64, 200), (120, 1000),
    (150, 40), (220, 333), (255, 257), (320, 240), (383, 385), (400, 1), (450, 800), (600, 600), (720, 576), (767, 769),
    (800, 450), (900, 1600), (1080, 1080), (1152, 1152), (1280, 720), (1366, 300), (1600, 66), (1920, 1080),
    (2000, 1500), (2304, 2304),
]  # fmt: skip
OTHER_MODES = [("L", (333, 222)), ("RGBA", (160, 120)), ("P", (140, 210)), ("1", (96, 64))]
FURTHER_MODES = ("L", "RGBA", "P", "I;16", "LA", "CMYK")
"""Two of them for each size in turn, beside two pictures in colour."""


def picture(width: int, height: int, mode: str = "RGB", seed: int = 0) -> Image.Image:
    """Smooth colours with some noise, different for every size and seed; a seed changes how much noise there is."""
    rng = np.random.default_rng(width * 10_000 + height + 10**9 * seed)
    small = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize((width, height))
    noise = (20, 3, 60, 8)[seed % 4]
    array = np.asarray(small, np.int16) + rng.integers(-noise, noise + 1, (height, width, 1), dtype=np.int16)
    image = Image.fromarray(array.clip(0, 255).astype(np.uint8))
    if mode == "RGBA":
        image.putalpha(Image.fromarray(rng.integers(0, 256, (height, width), dtype=np.uint8)))
    if mode == "I;16":
        grey = np.asarray(image.convert("L"), np.uint16)
        return Image.fromarray(grey * 256 + rng.integers(0, 256, (height, width), dtype=np.uint16))
    return image.convert(mode)


def four_pictures(number: int) -> list[Image.Image]:
    """Of the size with this number of ``SIZES + MORE_SIZES``: two in colour, two in other modes."""
    size = (SIZES + MORE_SIZES)[number]
    modes = ("RGB", "RGB", *(FURTHER_MODES[(2 * number + other) % len(FURTHER_MODES)] for other in range(2)))
    return [picture(*size, mode, seed) for seed, mode in enumerate(modes)]
