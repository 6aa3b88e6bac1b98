"""Tar shards, as WebDataset writes them -> their images, in constant memory."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from tarfile import EOFHeaderError  # type: ignore[attr-defined]
from typing import IO, Any

from qsit_plugin.images.errors import ImageError
from qsit_plugin.images.formats import SUFFIXES, suffix

from .source import LARGEST, Source, not_empty, read_file

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
        version = os.stat(path).st_mtime_ns
        if not _is_plain(path):
            with open(path, "rb") as stream:
                yield from members(path, stream, version)
            return
        with tarfile.open(path, "r:", tarinfo=_Header) as file:
            for member in _images(file):
                name = f"{path}/{member.name}"
                if member.issparse():
                    yield ImageError(name, "a sparse file in a tar; pack it as an ordinary one")
                    continue
                yield Source(name, member.size, version, partial(read_file, path, member.offset_data, member.size))
            _check_end(file)
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
    with tarfile.open(fileobj=stream, mode="r|*", tarinfo=_Header) as file:
        for member in _images(file):
            name = f"{path}/{member.name}"
            content = file.extractfile(member)
            read = partial(not_empty, name, b"" if content is None else content.read(LARGEST))
            yield Source(name, member.size, version, read)
        _check_end(file)


def _images(file: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    while (member := file.next()) is not None:
        file.members.clear()  # type: ignore[attr-defined]  # or every header would stay in memory
        if member.isfile() and suffix(member.name) in SUFFIXES:
            yield member


class _Header(tarfile.TarInfo):
    """Notes in its file that the zeros came which end a tar: tarfile takes a header that is damaged for them."""

    @classmethod
    def fromtarfile(cls, tarfile: Any) -> Any:
        try:
            return super().fromtarfile(tarfile)
        except EOFHeaderError:
            tarfile.has_ended = True
            raise


def _check_end(file: tarfile.TarFile) -> None:
    """Raise ReadError where a tar file breaks off."""
    if not getattr(file, "has_ended", False):
        raise tarfile.ReadError(f"it breaks off behind {file.offset:,} bytes")


def _is_plain(path: str) -> bool:
    try:
        with tarfile.open(path, "r:"):
            return True
    except tarfile.ReadError:
        return False
