"""Damaged image files: a small picture in many formats with mutated bytes, read and, for each tenth, scored."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

from PIL import Image

from .byte_damage import CHANGES, EXTREMES
from .case import Case, Fault, rng_of
from .pictures import PNG_START, SIZE, pictures, png_chunks, png_of
from .scoring import check, small_picture

NUMBER = {"short": 300, "long": 20_000}
ALLOWED = ("ImageError",)
SCORED = 10
"""Every so many cases a file that can be read is scored as well."""

_SIDES = (0, 1, 7, 4096, 16383, 16384, 2**15 - 1, 2**15, 2**16 - 1, 2**20, 2**31 - 1, 2**31, 2**32 - 1)


def prepare() -> None:
    _nano().score(small_picture())


def case(number: int, seed: int) -> Case:
    rng = rng_of(number, seed)
    name = sorted(pictures())[number % len(pictures())]
    kinds = list(_mutations(name))
    chosen = rng.choices(kinds, k=rng.choice((1, 1, 1, 2, 3)))
    repaired = name.startswith("PNG") and rng.random() < 0.6  # else nearly every mutation ends at a checksum
    label = f"{name}: {', '.join(chosen)}" + (", checksums right" if repaired else "")
    return Case(label, partial(_run, name, chosen, repaired, rng.random(), number % SCORED == 0), ALLOWED)


def _run(name: str, kinds: list[str], repaired: bool, seed: float, score: bool, folder: Path) -> str:
    from qsit_plugin.images.reading import read_image

    data, rng = pictures()[name], random.Random(seed)
    for kind in kinds:
        data = _mutations(name)[kind](data, rng)
    if repaired:
        data = png_of(png_chunks(data))
    (folder / "image").write_bytes(data)
    image = read_image(data)
    if type(image) is not Image.Image or image.mode != "RGB":  # a subclass would be a file that is read later
        raise Fault(f"the picture is {image}")
    image.getpixel((image.width - 1, image.height - 1))
    if not score:
        return f"read {image.width}x{image.height}"
    result = _nano().score(image)
    check(result)
    return f"score {result.value:.4f}"


@cache
def _nano() -> Any:
    import qsit_plugin

    return qsit_plugin.load("qsit-nano", device="cpu")


@cache
def _mutations(name: str) -> dict[str, Callable[[bytes, random.Random], bytes]]:
    found = {**CHANGES, "spliced with another file": _spliced, "another size": partial(_resized, name)}
    if name.startswith("PNG"):
        found["chunks shuffled"] = _chunks_shuffled
        found["bits of a chunk flipped"] = _chunk_flipped
    elif name.startswith("TIFF"):
        found["a tag of another value"] = _tag_overwritten
    return found


def _spliced(data: bytes, rng: random.Random) -> bytes:
    """The beginning of this file and the end of another."""
    other = pictures()[rng.choice(sorted(pictures()))]
    return data[: rng.randrange(len(data) + 1)] + other[rng.randrange(len(other)) :]


def _resized(name: str, data: bytes, rng: random.Random) -> bytes:
    """Width and height as the format writes them, each place of them with another value."""
    order = "big" if name.startswith(("PNG", "JPEG")) else "little"
    bytes_of = 4 if name.startswith(("PNG", "BMP")) else 2
    places = []
    for side in SIZE:
        for stored in {side, side - 1} if name.startswith("WebP") else {side}:  # WebP stores one less in places
            at = data.find(stored.to_bytes(bytes_of, order))
            if at >= 0:
                places.append(at)
    for at in places:
        data = data[:at] + (rng.choice(_SIDES) % 256**bytes_of).to_bytes(bytes_of, order) + data[at + bytes_of :]
    return data


def _chunks_shuffled(data: bytes, rng: random.Random) -> bytes:
    chunks = png_chunks(data)
    rng.shuffle(chunks)
    return png_of(chunks[: rng.randint(0, len(chunks))] + chunks)


def _chunk_flipped(data: bytes, rng: random.Random) -> bytes:
    """Bits of one chunk's content or kind, the others and all lengths as they were."""
    chunks = png_chunks(data)
    if not chunks:
        return PNG_START
    at = rng.randrange(len(chunks))
    kind, content = chunks[at]
    flip = CHANGES["bits flipped"]
    chunks[at] = (flip(kind, rng), content) if rng.random() < 0.2 else (kind, flip(content, rng))
    return png_of(chunks)


def _tag_overwritten(data: bytes, rng: random.Random) -> bytes:
    """Kind, type, count or value of one entry of the first directory."""
    if len(data) < 10:
        return data
    start = struct.unpack("<I", data[4:8])[0]
    if start + 2 > len(data):
        return data
    entries = struct.unpack("<H", data[start : start + 2])[0]
    at = start + 2 + 12 * rng.randrange(max(1, entries))
    field, width = rng.choice(((0, 2), (2, 2), (4, 4), (8, 4), (8, 2)))
    value = rng.choice((*EXTREMES, 2, 3, 5, 8, 16, 32, 256, 1024)) % 256**width
    return data[: at + field] + value.to_bytes(width, "little") + data[at + field + width :]
