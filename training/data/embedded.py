"""Images that a container holds, written as files: the bytes as they are stored, never encoded again."""

from __future__ import annotations

import hashlib
import io
import os
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from qsit_plugin.images.formats import SUFFIXES

from .rows import RowError

_PLAIN = re.compile(r"\w[\w .+-]{0,150}")
"""A part of a path that is a name on every system, and leads nowhere."""


@dataclass(frozen=True)
class Embedded:
    """An image in a container: its bytes, and its name there, which nobody has checked."""

    content: bytes
    name: str = ""


class ImageFolder:
    """The folder that embedded images are written to; made with the first of them."""

    def __init__(self, folder: Path):
        self.folder = folder

    def unpacked(self, value: Any) -> Any:
        """A path below the folder in the place of each embedded image; anything else as it is.

        Embedded are ``Embedded``, bytes, and Hugging Face's ``{"bytes", "path"}``; one without bytes is its path.
        Raises RowError for bytes that are no image.
        """
        if isinstance(value, list):
            return [self.unpacked(item) for item in value]
        if isinstance(value, dict) and isinstance(value.get("bytes"), bytes):
            value = Embedded(value["bytes"], PurePosixPath(value.get("path") or "").name)
        elif isinstance(value, dict):
            return value.get("path")
        elif isinstance(value, bytes):
            value = Embedded(value)
        return self.write(value) if isinstance(value, Embedded) else value

    def write(self, image: Embedded) -> str:
        """The path of the file below the folder: its own name, or, where that is no plain one or another image has it,
        ``<sha1>.<suffix>``. A file that is there is never overwritten. Raises RowError."""
        suffix = PurePosixPath(image.name).suffix
        suffix = suffix if suffix.lower() in SUFFIXES else _suffix_of(image.content)
        digest = hashlib.sha1(image.content, usedforsecurity=False).hexdigest()
        for name in (f"{image.name.removesuffix(suffix)}{suffix}", f"{digest}{suffix}"):
            if all(map(_PLAIN.fullmatch, name.split("/"))) and _is_or_becomes(self.folder / name, image.content):
                return name
        raise RowError(f"{self.folder / name} is there already, and is another file: give an empty folder as --images")


def _is_or_becomes(file: Path, content: bytes) -> bool:
    """Whether the file has this content, or could be given it; False where something else has its name, or its
    folder's."""
    if os.path.lexists(file):
        return file.is_file() and file.stat().st_size == len(content) and file.read_bytes() == content
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        return False
    part = file.with_name(f".unpacking-{os.getpid()}")
    part.write_bytes(content)
    os.replace(part, file)  # whole or not at all
    return True


def _suffix_of(content: bytes) -> str:
    from PIL import Image

    try:
        with Image.open(io.BytesIO(content)) as picture:
            return f".{(picture.format or '').lower()}"
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise RowError(f"its embedded image is not one that can be read: {error}") from None
