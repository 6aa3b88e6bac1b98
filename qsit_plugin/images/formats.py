"""Image file formats: the one list of suffixes, and the formats that Pillow reads with a package beside it.

Light: Pillow is imported only where a plugin is needed.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePath
from typing import BinaryIO

SUFFIXES = frozenset(
    (
        ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".webp", ".bmp", ".dib", ".gif", ".tif", ".tiff",
        ".avif", ".heic", ".heif", ".hif", ".jxl", ".jp2", ".ppm", ".pgm", ".pbm", ".pnm", ".tga",
    )
)  # fmt: skip
"""Files in a folder that are images, for every interface. A file given by name is read whatever its suffix."""

RAW_SUFFIXES = frozenset(
    (
        ".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dcr", ".dng", ".erf", ".iiq", ".kdc", ".mef", ".mos", ".mrw", ".nef",
        ".nrw", ".orf", ".pef", ".raf", ".raw", ".rw2", ".rwl", ".sr2", ".srf", ".srw", ".x3f",
    )
)  # fmt: skip
"""Camera raw files: they must be developed first, and each program develops them differently."""

LEFT_OUT = RAW_SUFFIXES | frozenset(
    (
        ".psd", ".psb", ".xcf", ".kra", ".svg", ".eps", ".exr", ".hdr",
        ".mov", ".mp4", ".m4v", ".avi", ".mkv", ".webm", ".mts", ".m2ts", ".3gp",
    )
)  # fmt: skip
"""Pictures and films that a person may expect to be scored and that are not. Other files beside photos
(texts, tables, settings) are left out silently."""

PLUGINS = {"HEIC": ("pillow_heif", "pillow-heif", "HEIF"), "JPEG XL": ("pillow_jxl", "pillow-jxl-plugin", "JXL")}
"""Format -> the module that teaches Pillow to read it, its name at the package index, Pillow's name of the format."""

PROGRAMS = ("EPS", "WMF")
"""What Pillow renders by running an external program (Ghostscript, the Windows shell) on an untrusted file."""

_DOUBLE_MEMORY_FORMATS, _DOUBLE_MEMORY_MODES = ("WEBP",), ("F", "I")
"""Decoded, these take twice the memory of others: libwebp keeps several whole frames, and 32 bits a grey value stand
beside their bytes. 16383 x 16383 pixels of WebP, which a file of 38 bytes can claim, took 4.0 GiB."""

_JXL_CONTAINER = b"\x00\x00\x00\x0cJXL \r\n\x87\n"
_HEIC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"}
_JXL_RATIOS = ((1, 1), (6, 5), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))


def suffix(name: str) -> str:
    return PurePath(name).suffix.lower()


def left_out(names: Iterable[str]) -> str:
    """``"3 files left out (.cr2, .mov)"``, of the files that a person may have expected to be read; "" for none."""
    found = [end for end in map(suffix, names) if end in LEFT_OUT]
    if not found:
        return ""
    return f"{len(found):,} file{'s' * (len(found) > 1)} left out ({', '.join(sorted(set(found)))})"


def format_of(head: bytes) -> str | None:
    """``"HEIC"``, ``"JPEG XL"`` or ``"AVIF"`` by the first 64 bytes of a file; None for all other formats."""
    if head.startswith((b"\xff\x0a", _JXL_CONTAINER)):
        return "JPEG XL"
    if head[4:8] != b"ftyp":
        return None
    end = min(int.from_bytes(head[:4], "big"), len(head))
    brands = {head[8:12], *(head[at : at + 4] for at in range(16, end - 3, 4))}
    if brands & {b"avif", b"avis"}:
        return "AVIF"
    return "HEIC" if brands & _HEIC_BRANDS else None


def decoded_limit(max_pixels: int | None, kind: str | None, mode: str) -> int | None:
    """The limit on pixels for Pillow's format and mode: half of it where decoding takes twice the memory."""
    double = kind in _DOUBLE_MEMORY_FORMATS or mode in _DOUBLE_MEMORY_MODES or mode.startswith("I;16")
    return max_pixels // 2 if max_pixels is not None and double else max_pixels


def enable(kind: str) -> None:
    """Let Pillow read a format of ``PLUGINS``, unless it does already; the caller holds the lock on opening.

    Raises ImportError where the package is missing or does not load. Only when a file of the format is met: it costs
    every process an import, and changes what Pillow reads in the whole of it.
    """
    from importlib import import_module

    from PIL import Image

    module, _, pillows = PLUGINS[kind]
    if pillows not in Image.OPEN:
        plugin = import_module(module)
        if kind == "HEIC":
            plugin.register_heif_opener()


def jxl_size(file: BinaryIO) -> tuple[int, int] | None:
    """(width, height) in the header of a JPEG XL file; None where there is none. The file is left at its beginning.

    The plugin decodes while it opens, so the size is read here before that (ISO/IEC 18181-1,
    SizeHeader; the container of 18181-2).
    """
    file.seek(0)
    head = file.read(12)
    code = head if head.startswith(b"\xff\x0a") else b""
    file.seek(12)
    while head == _JXL_CONTAINER and len(box := file.read(8)) == 8:
        length, kind = int.from_bytes(box[:4], "big"), box[4:]
        taken = 8
        if length == 1:
            length, taken = int.from_bytes(file.read(8), "big"), 16
        if kind in (b"jxlc", b"jxlp"):
            code = file.read(16)[4 * (kind == b"jxlp") :]
            break
        if length < taken:  # 0: up to the end of the file
            break
        file.seek(length - taken, 1)
    file.seek(0)
    return _size_header(code[2:]) if code.startswith(b"\xff\x0a") and len(code) >= 12 else None


def _size_header(code: bytes) -> tuple[int, int]:
    bits = int.from_bytes(code, "little")

    def take(count: int) -> int:
        nonlocal bits
        value, bits = bits & ((1 << count) - 1), bits >> count
        return value

    def length() -> int:
        return 8 * (take(5) + 1) if small else take((9, 13, 18, 30)[take(2)]) + 1

    small = take(1)
    height = length()
    ratio = take(3)
    if ratio == 0:
        return length(), height
    over, under = _JXL_RATIOS[ratio - 1]
    return height * over // under, height
