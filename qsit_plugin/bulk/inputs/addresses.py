"""Whatever fsspec opens (``s3://``, ``gs://``, ``https://``, ``zip://``, ``memory://`` ...) -> its images.

A listing at a time is in memory: that of one folder, as fsspec gives it.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

from qsit_plugin.images.errors import ImageError
from qsit_plugin.images.formats import LEFT_OUT, SUFFIXES, suffix

from .shards import SHARDS, members
from .source import LARGEST, Source, check_size, not_empty

CHECKSUMS = ("ETag", "etag", "md5Hash", "blob_id", "sha", "CRC")
"""What a file system may say of a file's content; the first that is there is taken."""

TIMES = ("mtime", "LastModified", "last_modified", "updated", "modified", "created")


@dataclass
class _Walk:
    """What ``sources`` was asked for, and the file system that an address leads to; ``behind``: the part of the address
    from the first ``::`` on, which names the archive."""

    system: Any
    behind: str
    recursive: bool
    skipped: Counter[str] | None
    shards: bool

    def address(self, name: str) -> str:
        """The whole address of a name of this file system."""
        return self.system.unstrip_protocol(name) + self.behind


def is_address(name: str) -> bool:
    """Whether it is ``protocol://...``, and no file of this machine is called so."""
    return "://" in name and not os.path.lexists(name)


def addressed(
    name: str, *, recursive: bool = True, skipped: Counter[str] | None = None, shards: bool = True
) -> Iterator[Source | ImageError]:
    """The images at an address: a file, a folder, a tar shard, or what matches a ``*`` in it. As ``sources``."""
    try:
        import fsspec
    except ImportError:
        yield ImageError(name, "addresses need fsspec, which is not installed: pip install 'qsit-plugin[bulk]'")
        return
    try:
        first, chain, behind = name.partition("::")
        system, path = fsspec.core.url_to_fs(first + chain + _absolute(behind) if chain else name)
        walk = _Walk(system, chain + _absolute(behind) if chain else "", recursive, skipped, shards)
        if "*" in path:
            found = sorted(system.glob(path, detail=True).items())
            if not found:
                yield ImageError(name, "nothing matches this pattern")
            for one, about in found:
                if about.get("type") != "directory":
                    yield from _one(walk, one, about)
            return
        about = {"type": "directory"} if name.endswith("/") else system.info(path)
    except ImportError as error:
        yield ImageError(name, f"its package is not installed: {error}")
    except FileNotFoundError:
        yield ImageError(name, "nothing is at this address")
    except Exception as error:  # each file system raises its own
        yield ImageError(name, f"cannot be opened: {_words(error)}")
    else:
        yield from _folder(walk, path) if about.get("type") == "directory" else _one(walk, path, about)


def _absolute(behind: str) -> str:
    """The address of an archive, so that it is one whatever folder the program runs in."""
    return behind if "://" in behind or "::" in behind else os.path.abspath(os.path.expanduser(behind))


def _folder(walk: _Walk, folder: str) -> Iterator[Source | ImageError]:
    waiting, empty = [folder], True
    while waiting:
        place = waiting.pop()
        try:
            listing = walk.system.ls(place, detail=True)
            walk.system.invalidate_cache(place)  # or the listings of all folders would stay in memory
        except Exception as error:  # each file system raises its own
            empty = False
            yield ImageError(walk.address(place), f"cannot list this folder: {_words(error)}")
            continue
        for about in listing:
            name = about["name"]
            last = name.rstrip("/").rpartition("/")[2]
            if name.rstrip("/") == place.rstrip("/") or last.startswith("."):
                continue  # some list a folder in itself
            if about["type"] == "directory":
                waiting += [name] if walk.recursive else []
            elif suffix(last) in SUFFIXES or (walk.shards and last.lower().endswith(SHARDS)):
                empty = False
                yield from _one(walk, name, about)
            elif walk.skipped is not None and suffix(last) in LEFT_OUT:
                walk.skipped["x" + suffix(last)] += 1
    if empty:
        within = "" if walk.recursive else " itself (its sub-folders were not searched)"
        yield ImageError(walk.address(folder), f"no image files in this folder{within}")


def _one(walk: _Walk, name: str, about: Mapping[str, Any]) -> Iterator[Source | ImageError]:
    address, version = walk.address(name), _version(walk.system, name, about)
    if not name.lower().endswith(SHARDS):
        yield Source(address, about.get("size"), version, partial(_read, walk.system, name, address, about.get("size")))
        return
    try:
        with walk.system.open(name, "rb") as stream:
            yield from members(address, stream, version)
    except Exception as error:  # of the file system, of tarfile, of an unpacker
        yield ImageError(address, f"cannot be read to its end: {_words(error)}")


def _version(system: Any, name: str, about: Mapping[str, Any]) -> int | None:
    """As ``Source.mtime_ns``. Where the listing says nothing, the file itself is asked."""
    version = _told(about)
    if version is None:
        with suppress(Exception):  # then there is none, and the content is looked at in every run
            version = _told(system.info(name))
    return version


def _told(about: Mapping[str, Any]) -> int | None:
    for key in CHECKSUMS:
        if about.get(key):
            return -1 - int.from_bytes(hashlib.sha256(str(about[key]).encode()).digest()[:7], "big")
    time = next((about[key] for key in TIMES if about.get(key)), None)
    if isinstance(time, datetime):
        time = time.timestamp()
    return int(time * 1_000_000_000) if isinstance(time, int | float) and 0 < time < 9e9 else None


def _read(system: Any, name: str, address: str, size: int | None) -> bytes:
    check_size(address, size or 0)
    try:
        if size is not None:
            return not_empty(address, system.cat_file(name))  # one request, where ``open`` makes one for each 5 MB
        with system.open(name, "rb") as stream:
            content = stream.read(LARGEST + 1)
    except ImageError:
        raise
    except FileNotFoundError as error:
        raise ImageError(address, "no such file") from error
    except Exception as error:  # each file system raises its own
        raise ImageError(address, f"cannot be read ({_words(error)}); try again") from error
    check_size(address, len(content))
    return not_empty(address, content)


def _words(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
