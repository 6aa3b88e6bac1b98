"""Tar shards, as WebDataset writes them -> their images, in constant memory."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import IO

from qsit_plugin.images.errors import ImageError
from qsit_plugin.images.formats import SUFFIXES, suffix

from .source import LARGEST, Source, changed, not_empty, read_file

SHARDS = (".tar", ".tar.gz", ".tgz")


def shards_above(path: str) -> Iterator[str]:
    """The shards and dataset files that a path lies in by its name, the nearest first; whether they are there is not
    looked at."""
    ends = (*SHARDS, ".arrow")
    return (str(above) for above in Path(path).parents if str(above).lower().endswith(ends))


def shard(path: str) -> Iterator[Source | ImageError]:
    """The images in a tar file. Of one that is not packed only the headers are read here, so that known members cost
    little; a packed one has to be unpacked up to its end."""
    try:
        version = changed(os.stat(path))
        if not _is_plain(path):
            with open(path, "rb") as stream:
                yield from members(path, stream, version)
            return
        with tarfile.open(path, "r:") as file:
            for member in _images(file):
                name = f"{path}/{member.name}"
                if member.issparse():
                    yield ImageError(name, "a sparse file in a tar; pack it as an ordinary one")
                    continue
                yield Source(name, member.size, version, partial(read_file, path, member.offset_data, member.size))
            if not _ends(path, file.offset):  # tarfile takes a damaged header for the end
                yield ImageError(
                    path, f"not a whole tar file (it breaks off behind {file.offset:,} bytes); get it again"
                )
    except FileNotFoundError:
        yield ImageError(path, "no such file")
    except (tarfile.TarError, EOFError, OSError, ValueError) as error:
        yield ImageError(path, f"not a whole tar file ({error}); get it again")
    except Exception as error:  # zlib.error, lzma.LZMAError: whatever an unpacker raises
        yield ImageError(path, f"cannot be unpacked ({error}); get it again")


def members(path: str, stream: IO[bytes], version: int | None) -> Iterator[Source | ImageError]:
    """The images in a tar file that is read once from its beginning to its end, packed or not.

    Raises what tarfile, an unpacker or the stream raises.
    """
    with tarfile.open(fileobj=stream, mode="r|*") as file:
        for member in _images(file):
            name = f"{path}/{member.name}"
            content = file.extractfile(member)
            read = partial(not_empty, name, b"" if content is None else content.read(LARGEST))
            yield Source(name, member.size, version, read)


def _images(file: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    while (member := file.next()) is not None:
        file.members.clear()  # type: ignore[attr-defined]  # or every header would stay in memory
        if member.isfile() and suffix(member.name) in SUFFIXES:
            yield member


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
