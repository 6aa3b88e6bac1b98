"""Images that a container holds, written as files: the bytes as they are stored, never encoded again."""

from __future__ import annotations

import filecmp
import hashlib
import io
import os
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from qsit_plugin.images.formats import SUFFIXES

from .rows import RowError

LARGEST = 1 << 30
"""Bytes of one image. The largest photos of rated datasets have some 20 MB; no container fills a disk by one entry."""
_PLAIN = re.compile(r"\w[\w .+-]{0,150}")
"""A part of a path that is a name on every system, and leads nowhere."""


@dataclass(frozen=True)
class Embedded:
    """An image in a container: its bytes, to be read once, and its name there, which nobody has checked."""

    stream: BinaryIO
    name: str = ""


class ImageFolder:
    """The folder that embedded images are written to; made with the first of them."""

    def __init__(self, folder: Path):
        self.folder = folder

    def unpacked(self, value: Any) -> Any:
        """A path below the folder in the place of each embedded image; anything else as it is.

        Embedded are ``Embedded``, bytes, and Hugging Face's ``{"bytes", "path"}``; one without bytes is its path.
        Raises RowError for an image that is too large, or none.
        """
        if isinstance(value, list):
            return [self.unpacked(item) for item in value]
        if isinstance(value, dict) and isinstance(value.get("bytes"), bytes):
            value = Embedded(io.BytesIO(value["bytes"]), PurePosixPath(value.get("path") or "").name)
        elif isinstance(value, dict):
            return value.get("path")
        elif isinstance(value, bytes):
            value = Embedded(io.BytesIO(value))
        return self.write(value) if isinstance(value, Embedded) else value

    def write(self, image: Embedded) -> str:
        """The path of the file below the folder: its own name, or, where that is no plain one or another image has it,
        ``<sha1>.<suffix>``. A file that is there is never overwritten. Raises RowError."""
        self.folder.mkdir(parents=True, exist_ok=True)
        part = self.folder / f".unpacking-{os.getpid()}"
        try:
            digest = _copy(image, part)
            suffix = PurePosixPath(image.name).suffix
            suffix = suffix if suffix.lower() in SUFFIXES else _suffix_of(part)
            own = f"{image.name.removesuffix(suffix)}{suffix}" if image.name else ""
            for name in (own, f"{digest}{suffix}"):
                target = self.folder / name
                if not all(map(_PLAIN.fullmatch, name.split("/"))):
                    continue
                if target.is_file() and filecmp.cmp(part, target, shallow=False):
                    return name
                if not os.path.lexists(target) and _has_folder(target):
                    os.replace(part, target)
                    return name
        finally:
            part.unlink(missing_ok=True)
        raise RowError(f"{self.folder / name} is there already, and is another file: give an empty folder as --images")


def _copy(image: Embedded, target: Path) -> str:
    """Write the bytes, and give their SHA-1."""
    digest, size = hashlib.sha1(usedforsecurity=False), 0
    with target.open("wb") as stream:
        while chunk := image.stream.read(1 << 20):
            size += len(chunk)
            if size > LARGEST:
                raise RowError(f"its image {image.name!r} has more than {LARGEST >> 20:,} MiB")
            digest.update(chunk)
            stream.write(chunk)
    return digest.hexdigest()


def _has_folder(file: Path) -> bool:
    """Whether the folder of the file is there, or could be made; an image may have its name."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        return False
    return True


def _suffix_of(file: Path) -> str:
    from PIL import Image

    try:
        with Image.open(file) as picture:
            return f".{(picture.format or '').lower()}"
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise RowError(f"its embedded image is not one that can be read: {error}") from None
