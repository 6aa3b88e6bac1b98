"""Small pictures of stored images, as the data URIs of a page that asks nothing of the network."""

from __future__ import annotations

import base64
import io
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator

from PIL import Image

from qsit_plugin.images.errors import ImageError
from qsit_plugin.images.reading import read_image
from qsit_plugin.parallel import in_order

from .inputs.shards import shards_above
from .inputs.source import Source
from .inputs.sources import sources

SIDE = 96
"""Pixels of the longer side."""

LARGEST = 6_000
"""Bytes of one; noise does not get smaller and is left out."""

READERS, AHEAD = 4, 64


def thumbnails(paths: Iterable[str]) -> dict[str, str]:
    """path -> JPEG in base64, of those images that are there and can be read; upright as their EXIF says.

    ``paths``: as the store holds them; members of tar shards are found in their shard.
    """

    def named(source: Source) -> tuple[str, str]:
        return source.path, _small(source)

    made = in_order(named, _sources(paths), threads=READERS, ahead=AHEAD, helping=False)
    return {path: small for path, small in made if small}


def shard_of(path: str) -> str | None:
    """The tar shard that a stored path lies in, None for a file of its own."""
    return next(shards_above(path), None)


def _sources(paths: Iterable[str]) -> Iterator[Source]:
    members: defaultdict[str, set[str]] = defaultdict(set)
    for path in paths:
        shard = shard_of(path)
        if os.path.isfile(path):
            yield from (source for source in sources([path]) if isinstance(source, Source))
        elif shard is not None and os.path.isfile(shard):
            members[shard].add(path)
    for shard, wanted in members.items():
        for source in sources([shard]):
            if isinstance(source, Source) and source.path in wanted:
                yield source


def _small(source: Source) -> str:
    """Empty where there is no picture any more, or where it does not get small enough."""
    try:
        picture = _picture(source.read())
    except ImageError:
        return ""
    picture.thumbnail((SIDE, SIDE))
    for quality in (60, 30):
        stream = io.BytesIO()
        picture.save(stream, "JPEG", quality=quality, optimize=True)
        if stream.tell() <= LARGEST:
            return base64.b64encode(stream.getvalue()).decode("ascii")
    return ""


def _picture(content: bytes) -> Image.Image:
    """Decoded; a JPEG file at a fraction of its size. Raises ImageError."""
    try:
        opened = Image.open(io.BytesIO(content))
        if opened.format in ("JPEG", "MPO"):
            opened.draft("RGB", (2 * SIDE, 2 * SIDE))
            return read_image(opened, exif_rotation=True)
    except (OSError, ValueError, Image.DecompressionBombError):
        pass  # what it is instead, ``read_image`` says
    return read_image(content, exif_rotation=True)
