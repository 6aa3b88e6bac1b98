"""The error of an image that cannot be used, and the limit on its size. Imports neither Pillow nor NumPy."""

from __future__ import annotations

import operator
from typing import Any

from qsit_plugin.errors import ImageError

MAX_PIXELS = 2**28
"""Default limit on width x height: 268 million pixels, 805 MB as RGB. Guards against decompression bombs."""


def pixel_limit(max_pixels: Any) -> int | None:
    """``max_pixels`` as it may be given: a whole number from 1 on, or None for no limit. ValueError for any other."""
    if max_pixels is None:
        return None
    try:
        limit = operator.index(max_pixels)
    except TypeError:
        limit = 0
    if limit < 1 or isinstance(max_pixels, bool):
        raise ValueError(f"max_pixels must be a whole number from 1 on, or None for no limit; got {max_pixels!r}")
    return limit


def check_size(width: int, height: int, name: str, max_pixels: int | None) -> None:
    """Raise ImageError for a picture without pixels, or with more of them than ``max_pixels``."""
    if width < 1 or height < 1:
        raise ImageError(name, f"zero-sized ({width}x{height}); an image needs at least one pixel")
    if max_pixels is not None and width * height > max_pixels:
        raise ImageError(
            name,
            f"{width}x{height} is over the limit of {max_pixels:,} pixels; reduce the image or raise max_pixels "
            "(--max-pixels on the command line)",
        )
