"""Names of files, folders, tar shards, datasets and addresses -> their images, one after the other, in constant memory.

Unlike ``cli/inputs.py`` nothing is sorted or listed first: a folder's images come as the system gives them.
"""

from __future__ import annotations

import codecs
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from typing import BinaryIO

from qsit_plugin.images.errors import ImageError
from qsit_plugin.images.formats import LEFT_OUT, SUFFIXES, suffix

from . import datasets_on_disk
from .addresses import addressed, is_address
from .shards import SHARDS, shard
from .source import Source, file_source


def sources(
    names: Iterable[str],
    *,
    recursive: bool = True,
    skipped: Counter[str] | None = None,
    shards: bool = True,
    column: str | None = None,
) -> Iterator[Source | ImageError]:
    """The images in files, folders, tar shards and datasets; an ImageError for what is no image and cannot be listed.

    Folders are searched by suffix, hidden files left out, links to folders not entered. ``skipped`` counts pictures of
    kinds that are not read, under made-up names of their suffix, for ``formats.left_out``. ``shards=False`` passes over
    tar shards and datasets in folders. ``column`` holds the images of a dataset; None: the only one that does.
    """
    for name in names:
        name = name.removeprefix("file:///" if os.name == "nt" else "file://")
        if is_address(name):
            yield from addressed(name, recursive=recursive, skipped=skipped, shards=shards)
        elif os.path.isdir(name):
            yield from _folder(os.path.abspath(name), recursive, skipped, shards, column)
        elif name.lower().endswith(SHARDS):
            yield from shard(os.path.abspath(name))
        elif name.lower().endswith(datasets_on_disk.SUFFIX):
            yield from datasets_on_disk.arrow_file(os.path.abspath(name), column)
        else:
            yield file_source(os.path.abspath(name))


def _folder(
    folder: str, recursive: bool, skipped: Counter[str] | None, shards: bool, column: str | None
) -> Iterator[Source | ImageError]:
    waiting, empty = [folder], True
    while waiting:
        place = waiting.pop()
        if shards and datasets_on_disk.is_dataset(place):
            empty = False
            yield from datasets_on_disk.dataset(place, column)
            continue
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
                        yield file_source(one.path)
                    elif shards and one.name.lower().endswith(SHARDS):
                        empty = False
                        yield from shard(one.path)
                    elif skipped is not None and end in LEFT_OUT:
                        skipped["x" + end] += 1
        except OSError as error:
            empty = False
            yield ImageError(place, f"cannot list this folder: {error.strerror}")
    if empty:
        within = "" if recursive else " itself (its sub-folders were not searched)"
        yield ImageError(folder, f"no image files in this folder{within}")


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
