"""Tar files of WebDataset: members that share a name up to its first dot are one record.

``0001.jpg`` and ``0001.json``: the fields of the JSON, and the picture under ``image``. ``0001.txt`` becomes the field
``txt``. Read as a stream, one member after the other; nothing is unpacked here, see ``containers.unpacked``.
"""

from __future__ import annotations

import json
import lzma
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import Any

from qsit_plugin.evaluation.datasets.ratings import DatasetError
from qsit_plugin.images.formats import SUFFIXES

LARGEST = 1 << 28
"""Bytes of all members of a record, which are in memory until it is whole."""
FAULT = "__fault__"
"""The key of the message that says what is wrong with a record."""


def tar(path: Path) -> Iterator[dict[str, Any]]:
    """The records of a tar file, packed or not; ``id`` is the shared name where the JSON has none.

    Links, devices, folders and hidden files are passed over. Raises DatasetError for a file that is torn, and for a
    record that is too large.
    """
    try:
        with tarfile.open(path, "r|*") as file:
            visible = (one for one in file if one.isreg() and PurePosixPath(one.name).name[:1] not in ("", "."))
            for key, group in groupby(visible, lambda one: _key(one.name)):
                contents, size = list[tuple[str, bytes]](), 0
                for member in group:
                    size += member.size
                    stream = file.extractfile(member)
                    if size > LARGEST or stream is None:
                        raise DatasetError(f"{path}: {key} has {size:,} bytes, allowed are {LARGEST:,}")
                    contents.append((member.name, stream.read()))
                yield _record(key, contents)
    except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise DatasetError(f"{path} is not a whole tar file: {error}") from None


def _key(name: str) -> str:
    path = PurePosixPath(name)
    return str(path.with_name(path.name.partition(".")[0]))


def _record(key: str, contents: Sequence[tuple[str, bytes]]) -> dict[str, Any]:
    """The pictures take the place of the paths in the JSON: in ``images`` where it has that, or ``image``."""
    record: dict[str, Any] = {"id": key}
    pictures = []
    for name, content in contents:
        ending = PurePosixPath(name).name.partition(".")[2]
        if PurePosixPath(name).suffix.lower() in SUFFIXES:
            pictures.append({"bytes": content, "name": name.removeprefix("./")})
        elif ending != "json":
            record[ending] = content.decode("utf-8", "replace").strip()
        else:
            try:
                record.update(json.loads(content))
            except (ValueError, TypeError, RecursionError) as error:
                record[FAULT] = f"{name} is not a JSON object: {error}"
    if pictures:
        several = "images" in record or ("messages" in record and "image" not in record)
        one = pictures[0] if len(pictures) == 1 else pictures
        record["images" if several else "image"] = pictures if several else one
    return record
