"""Source: one image of many, before it is read. And the two that are files of this machine."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from qsit_plugin.images.errors import ImageError
from qsit_plugin.images.reading import read_image

LARGEST = 2**31
"""Bytes of an image file: it is read whole, to be hashed and decoded from the same bytes."""


@dataclass(frozen=True)
class Source:
    """One image: its absolute path, its size in bytes and the time of its last change, None where they cannot be had,
    and how its bytes are read; that raises ImageError.

    The path is unambiguous: ``SHARD/MEMBER`` in a tar shard, ``FILE.arrow/ROW`` in a dataset, else the whole address.
    The time is in nanoseconds since 1970, that of the shard or file which holds the image; for what has a checksum (an
    ETag) it is a negative number made of that, which changes when the image does.
    """

    path: str
    size: int | None
    mtime_ns: int | None
    read: Callable[[], bytes]


def file_source(path: str) -> Source:
    """An image file. One that is not there, or no file, says so when it is read."""
    try:
        about = os.stat(path)
    except (OSError, ValueError):  # ``read_file`` says why
        return Source(path, None, None, partial(read_file, path))
    return Source(path, about.st_size, about.st_mtime_ns, partial(read_file, path))


def read_file(path: str, start: int = 0, size: int | None = None) -> bytes:
    """A file, or ``size`` bytes of it. Raises ImageError in the words of ``read_image``."""
    try:
        if not os.path.isfile(path):
            read_image(path)  # says what it is instead, or where a link leads
        with open(path, "rb") as file:
            length = os.fstat(file.fileno()).st_size if size is None else size
            check_size(path, length)
            file.seek(start)
            content = file.read(length)
    except ImageError:
        raise
    except (OSError, ValueError) as error:
        if size is None:
            read_image(path)
        raise ImageError(path, f"cannot be read ({error}); get it again") from error
    if size is not None and len(content) < size:
        raise ImageError(path, "cut off in this tar file; get it again")
    return not_empty(path, content)


def check_size(path: str, size: int) -> None:
    """Raise ImageError for more bytes than are read."""
    if size > LARGEST:
        raise ImageError(path, f"{size:,} bytes; more than {LARGEST:,} are not read here: convert it")


def not_empty(path: str, content: bytes) -> bytes:
    """The content. Raises ImageError where there is none."""
    if not content:
        raise ImageError(path, "empty file; get it again")
    return content
