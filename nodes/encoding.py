"""Pictures as PNG, WebP and JPEG files, with the workflow where ComfyUI's own nodes write it. Imports no ComfyUI.

PNG has texts by key. WebP and JPEG have them in EXIF: ``prompt:{...}`` in the tag Model (0x0110), the others from the
tag Make (0x010F) downwards, as ComfyUI's writer of animated WebP does, which its page reads back.
"""

from __future__ import annotations

import io
from collections.abc import Mapping

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from qsit_plugin.nodes.errors import InputError

ENDINGS = {"PNG": "png", "WebP": "webp", "JPEG": "jpg"}
LONGEST_SIDE = {"WebP": 16383, "JPEG": 65535}
"""Pixels that the formats can count."""
JPEG_EXIF_BYTES = 65533
"""A segment of a JPEG file counts its length, with the two bytes of the count, in 16 bits."""
_MODEL = 0x0110


def check_side(picture: Image.Image, kind: str) -> None:
    """Raise InputError for a picture that the format cannot hold."""
    longest = LONGEST_SIDE.get(kind)
    if longest is not None and max(picture.size) > longest:
        raise InputError(f"{kind} holds at most {longest:,} pixels a side, got {picture.size}; save as PNG")


def encoded(picture: Image.Image, kind: str, quality: int, texts: Mapping[str, str]) -> tuple[bytes, list[str]]:
    """The bytes of the file, and the keys of texts that it cannot hold (JPEG, from 64 kB on; the longest go first).

    Args:
        kind: "PNG", "WebP" or "JPEG".
        quality: 1 to 100, of WebP and JPEG; 100 is WebP without loss.
        texts: ASCII by key, ``prompt`` and ``workflow`` among them.
    """
    stream = io.BytesIO()
    left_out: list[str] = []
    if kind == "PNG":
        info = PngInfo()
        for key, text in texts.items():
            info.add_text(key, text)
        picture.save(stream, "PNG", pnginfo=info if texts else None, compress_level=4)
        return stream.getvalue(), left_out
    exif = _exif(texts)
    if kind == "WebP":
        picture.save(stream, "WEBP", exif=exif, quality=quality, lossless=quality == 100)
        return stream.getvalue(), left_out
    by_length = sorted(texts, key=lambda key: len(texts[key]))
    while len(exif) > JPEG_EXIF_BYTES:
        left_out.append(by_length.pop())
        exif = _exif({key: text for key, text in texts.items() if key not in left_out})
    picture.save(stream, "JPEG", exif=exif, quality=quality, subsampling=0 if quality >= 90 else 2)
    return stream.getvalue(), left_out


def _exif(texts: Mapping[str, str]) -> bytes:
    exif, tag = Image.Exif(), _MODEL - 1
    for key, text in texts.items():
        if key == "prompt":
            exif[_MODEL] = f"{key}:{text}"
        else:
            exif[tag] = f"{key}:{text}"
            tag -= 1
    return exif.tobytes() if texts else b""
