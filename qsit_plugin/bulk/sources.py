"""Names of files, folders and tar shards -> their images, one after the other, in constant memory.

Unlike ``cli/inputs.py`` nothing is sorted or listed first: a folder's images come as the system gives them.
"""

from __future__ import annotations

import codecs
import os
import sys
import tarfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

from qsit_plugin.images.errors import ImageError
from qsit_plugin.images.formats import LEFT_OUT, SUFFIXES, suffix
from qsit_plugin.images.reading import read_image

LARGEST = 2**31
"""Bytes of an image file: it is read whole, to be hashed and decoded from the same bytes."""

SHARDS = (".tar", ".tar.gz", ".tgz")


@dataclass(frozen=True)
class Source:
    """One image: its absolute path (``SHARD/MEMBER`` in a shard), its size in bytes and the time of its last change
    (the shard's), None where they cannot be had, and how its bytes are read; that raises ImageError."""

    path: str
    size: int | None
    mtime_ns: int | None
    read: Callable[[], bytes]


def shards_above(path: str) -> Iterator[str]:
    """The shards that a path lies in by its name, the nearest first; whether they are there is not looked at."""
    return (str(above) for above in Path(path).parents if str(above).lower().endswith(SHARDS))


def sources(
    names: Iterable[str], *, recursive: bool = True, skipped: Counter[str] | None = None, shards: bool = True
) -> Iterator[Source | ImageError]:
    """The images in files, folders and tar shards; an ImageError for what is no image and cannot be listed.

    Folders are searched by suffix, hidden files left out, links to folders not entered. ``skipped`` counts pictures of
    kinds that are not read, under made-up names of their suffix, for ``formats.left_out``. ``shards=False`` passes over
    tar shards in folders.
    """
    for name in names:
        if os.path.isdir(name):
            yield from _folder(os.path.abspath(name), recursive, skipped, shards)
        elif name.lower().endswith(SHARDS):
            yield from _shard(os.path.abspath(name))
        else:
            yield _file(name if "://" in name else os.path.abspath(name))


def _folder(folder: str, recursive: bool, skipped: Counter[str] | None, shards: bool) -> Iterator[Source | ImageError]:
    waiting, empty = [folder], True
    while waiting:
        place = waiting.pop()
        try:
            with os.scandir(place) as inside:
                for one in inside:
                    if one.name.startswith("."):
                        continue
                    end = suffix(one.name)
                    if one.is_dir(follow_symlinks=False):
                        waiting += [one.path] if recursive else []
                    elif end in SUFFIXES:
                        empty = False
                        yield _file(one.path)
                    elif shards and one.name.lower().endswith(SHARDS):
                        empty = False
                        yield from _shard(one.path)
                    elif skipped is not None and end in LEFT_OUT:
                        skipped["x" + end] += 1
        except OSError as error:
            empty = False
            yield ImageError(place, f"cannot list this folder: {error.strerror}")
    if empty:
        within = "" if recursive else " itself (its sub-folders were not searched)"
        yield ImageError(folder, f"no image files in this folder{within}")


def _file(path: str) -> Source:
    try:
        about = os.stat(path)
    except (OSError, ValueError):  # ``_bytes`` says why
        return Source(path, None, None, partial(_bytes, path))
    return Source(path, about.st_size, about.st_mtime_ns, partial(_bytes, path))


def _bytes(path: str, start: int = 0, size: int | None = None) -> bytes:
    """A file, or ``size`` bytes of it. Raises ImageError in the words of ``read_image``."""
    try:
        if not os.path.isfile(path):
            read_image(path)  # says what it is instead, or where a link leads
        with open(path, "rb") as file:
            length = os.fstat(file.fileno()).st_size if size is None else size
            if length > LARGEST:
                raise ImageError(path, f"{length:,} bytes; more than {LARGEST:,} are not read here: convert it")
            file.seek(start)
            content = file.read(length)
    except ImageError:
        raise
    except (OSError, ValueError) as error:
        if size is None:
            read_image(path)
        raise ImageError(path, f"cannot be read ({error}); get it again") from error
    if not content:
        raise ImageError(path, "empty file; get it again")
    if size is not None and len(content) < size:
        raise ImageError(path, "cut off in this tar file; get it again")
    return content


def _shard(path: str) -> Iterator[Source | ImageError]:
    """The images in a tar file. Of one that is not packed only the headers are read here, so that known members cost
    little; a packed one has to be unpacked up to its end."""
    try:
        about = os.stat(path)
        packed = not _is_plain(path)
        with tarfile.open(path, "r|*" if packed else "r:") as file:
            while (member := file.next()) is not None:
                file.members.clear()  # type: ignore[attr-defined]  # or every header would stay in memory
                if not member.isfile() or suffix(member.name) not in SUFFIXES:
                    continue
                name = f"{path}/{member.name}"
                if member.issparse():
                    yield ImageError(name, "a sparse file in a tar; pack it as an ordinary one")
                    continue
                read = partial(_bytes, path, member.offset_data, member.size)
                if packed:
                    content = file.extractfile(member)
                    read = partial(_given, name, b"" if content is None else content.read(LARGEST))
                yield Source(name, member.size, about.st_mtime_ns, read)
            if not packed and not _ends(path, file.offset):  # tarfile takes a damaged header for the end
                yield ImageError(
                    path, f"not a whole tar file (it breaks off behind {file.offset:,} bytes); get it again"
                )
    except FileNotFoundError:
        yield ImageError(path, "no such file")
    except (tarfile.TarError, EOFError, OSError, ValueError) as error:
        yield ImageError(path, f"not a whole tar file ({error}); get it again")
    except Exception as error:  # zlib.error, lzma.LZMAError: whatever an unpacker raises
        yield ImageError(path, f"cannot be unpacked ({error}); get it again")


def _ends(path: str, offset: int) -> bool:
    """Whether a tar file has at this place the zeros that end it."""
    with open(path, "rb") as file:
        file.seek(offset)
        return file.read(tarfile.BLOCKSIZE) == bytes(tarfile.BLOCKSIZE)


def _is_plain(path: str) -> bool:
    try:
        with tarfile.open(path, "r:"):
            return True
    except tarfile.ReadError:
        return False


def _given(name: str, content: bytes) -> bytes:
    if not content:
        raise ImageError(name, "empty file; get it again")
    return content


def listed(file: str) -> Iterator[str]:
    """The names in a list file, ``-`` for stdin: one a line, or with a NUL behind each, as ``find -print0`` writes."""
    with nullcontext(sys.stdin.buffer) if file == "-" else open(file, "rb") as stream:
        first = stream.read(1 << 16)
        end = b"\0" if b"\0" in first else b"\n"
        first = first.removeprefix(codecs.BOM_UTF8)
        for name in _pieces(first, stream, end):
            name = name if end == b"\0" else name.rstrip(b"\r")
            if name:
                yield os.fsdecode(name)


def _pieces(first: bytes, stream: BinaryIO, end: bytes) -> Iterator[bytes]:
    rest = first
    while True:
        *whole, rest = rest.split(end)
        yield from whole
        more = stream.read(1 << 16)
        if not more:
            yield rest
            return
        rest += more
