"""Healthy image files to damage: one small photo in six formats and their variants, as (name -> bytes)."""

from __future__ import annotations

import io
import struct
import zlib
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, features

DEMO = Path(__file__).resolve().parents[2] / "qsit_plugin" / "demo" / "astronaut.jpg"
SIZE = (60, 44)
"""Width and height: small, so that a mutation often meets something that matters, and a case is quick."""

PNG_START = b"\x89PNG\r\n\x1a\n"


@cache
def pictures() -> dict[str, bytes]:
    photo = Image.open(DEMO).convert("RGB").resize(SIZE)
    grey = np.asarray(photo.convert("L"))
    turned = photo.transpose(Image.Transpose.ROTATE_180)
    deep = Image.fromarray(grey.astype(np.uint16) * 257)
    exif = photo.getexif()
    exif[0x0112], exif[0x010E] = 6, "a description"  # orientation: turned
    profile = bytes(range(256)) * 4
    made = {
        "JPEG": _saved(photo, "JPEG", quality=85),
        "JPEG progressive": _saved(photo, "JPEG", progressive=True, quality=60),
        "JPEG with EXIF": _saved(photo, "JPEG", exif=exif, icc_profile=profile, comment=b"a comment"),
        "JPEG CMYK": _saved(photo.convert("CMYK"), "JPEG"),
        "JPEG grey": _saved(photo.convert("L"), "JPEG"),
        "PNG": _saved(photo, "PNG"),
        "PNG palette": _saved(photo.quantize(16), "PNG", transparency=3),
        "PNG 16-bit": _saved(deep, "PNG"),
        "PNG interlaced": _interlaced(np.asarray(photo)),
        "PNG with iCCP": _saved(photo, "PNG", icc_profile=profile, exif=exif, dpi=(72, 72)),
        "PNG with text": _png_with_text(_saved(photo, "PNG")),
        "PNG one bit": _saved(photo.convert("1"), "PNG"),
        "PNG animated": _saved(photo, "PNG", save_all=True, append_images=[turned], duration=100),
        "GIF": _saved(photo, "GIF"),
        "GIF animated": _saved(photo, "GIF", save_all=True, append_images=[turned, photo], duration=100, loop=0),
        "TIFF": _saved(photo, "TIFF"),
        "TIFF 16-bit": _saved(deep, "TIFF"),
        "TIFF float": _saved(Image.fromarray(grey.astype(np.float32) / 255), "TIFF"),
        "TIFF multi-page": _saved(photo, "TIFF", save_all=True, append_images=[turned]),
        "BMP": _saved(photo, "BMP"),
        "BMP palette": _saved(photo.quantize(16), "BMP"),
        "BMP RLE": _rle_bmp(np.asarray(photo.convert("L"))),
    }
    if features.check("libtiff"):
        for name, kind in (("LZW", "tiff_lzw"), ("deflate", "tiff_adobe_deflate"), ("JPEG", "jpeg")):
            made[f"TIFF {name}"] = _saved(photo, "TIFF", compression=kind)
        made["TIFF group 4"] = _saved(photo.convert("1"), "TIFF", compression="group4")
    if features.check("webp"):
        made["WebP"] = _saved(photo, "WEBP", quality=70)
        made["WebP lossless"] = _saved(photo, "WEBP", lossless=True, exif=exif, icc_profile=profile)
        made["WebP alpha"] = _saved(photo.convert("RGBA"), "WEBP", quality=70)
        made["WebP animated"] = _saved(photo, "WEBP", save_all=True, append_images=[turned], duration=100)
    return made


def png_chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    """(kind, content) of each chunk of a PNG, as far as the file is whole; checksums are not looked at."""
    chunks, at = [], len(PNG_START)
    while at + 8 <= len(data):
        length, kind = struct.unpack(">I4s", data[at : at + 8])
        chunks.append((kind, data[at + 8 : at + 8 + length]))
        at += length + 12
    return chunks


def png_of(chunks: list[tuple[bytes, bytes]]) -> bytes:
    """A PNG with right lengths and checksums."""
    parts = [struct.pack(">I", len(c)) + k + c + struct.pack(">I", zlib.crc32(k + c)) for k, c in chunks]
    return PNG_START + b"".join(parts)


def _saved(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)  # type: ignore[arg-type]
    return buffer.getvalue()


def _interlaced(pixels: np.ndarray) -> bytes:
    """Adam7, which Pillow reads and does not write. ``pixels``: uint8 (H, W, 3)."""
    passes = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
    rows = [b"\0" + row.tobytes() for top, left, down, right in passes for row in pixels[top::down, left::right]]
    header = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 8, 2, 0, 0, 1)
    return png_of([(b"IHDR", header), (b"IDAT", zlib.compress(b"".join(rows))), (b"IEND", b"")])


def _png_with_text(data: bytes) -> bytes:
    """With all three kinds of text chunks, one of them a million letters that take a thousand bytes."""
    first, *rest = png_chunks(data)
    texts = [
        (b"tEXt", b"Title\0a photo"),
        (b"zTXt", b"Comment\0\0" + zlib.compress(b"a" * 10**6)),
        (b"iTXt", b"Author\0\0\0en\0Author\0somebody"),
    ]
    return png_of([first, *texts, *rest])


def _rle_bmp(grey: np.ndarray) -> bytes:
    """8-bit run lengths, which Pillow reads and does not write. ``grey``: uint8 (H, W)."""
    data = bytearray()
    for row in grey[::-1] // 32 * 32:
        start = 0
        for end in range(1, len(row) + 1):
            if end == len(row) or row[end] != row[start] or end - start == 255:
                data += bytes((end - start, int(row[start])))
                start = end
        data += b"\0\0"  # end of line
    data += b"\0\1"  # end of bitmap
    palette = b"".join(bytes((i, i, i, 0)) for i in range(256))
    offset = 54 + len(palette)
    info = struct.pack("<IiiHHIIiiII", 40, grey.shape[1], grey.shape[0], 1, 8, 1, len(data), 2835, 2835, 256, 0)
    return struct.pack("<2sIHHI", b"BM", offset + len(data), 0, 0, offset) + info + palette + bytes(data)
