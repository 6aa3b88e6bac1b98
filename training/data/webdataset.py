"""Tar files of WebDataset: members that share a name up to its first dot are one record.

``0001.jpg`` and ``0001.json``: the fields of the JSON, and the picture under ``image``. ``0001.txt`` becomes the field
``txt``. Read as a stream, one member after the other; nothing but pictures is written, see ``embedded``.
"""

from __future__ import annotations

import json
import lzma
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from qsit_plugin.evaluation.datasets.ratings import DatasetError
from qsit_plugin.images.formats import SUFFIXES

from .embedded import Embedded

LARGEST = 1 << 28
"""Bytes of all members of a record, which are in memory until it is whole."""
FAULT = "__fault__"
"""The key of what is wrong with a record, in words."""


@dataclass
class _Sample:
    key: str
    size: int = 0
    fields: dict[str, Any] = field(default_factory=dict)
    pictures: list[Embedded] = field(default_factory=list)

    def add(self, name: str, ending: str, content: bytes) -> None:
        if PurePosixPath(name).suffix.lower() in SUFFIXES:
            self.pictures.append(Embedded(content, name.removeprefix("./")))
        elif ending != "json":
            self.fields[ending] = content.decode("utf-8", "replace").strip()
        else:
            try:
                self.fields.update(json.loads(content))
            except (ValueError, TypeError, RecursionError) as error:
                self.fields[FAULT] = f"{name} is not a JSON object: {error}"

    def record(self) -> dict[str, Any]:
        """The pictures in the place of the paths that the JSON names: in ``images`` where it has that, or ``image``."""
        record = {"id": self.key, **self.fields}
        if self.pictures:
            several = "images" in record or ("messages" in record and "image" not in record)
            one = self.pictures[0] if len(self.pictures) == 1 else self.pictures
            record["images" if several else "image"] = self.pictures if several else one
        return record


def tar(path: Path) -> Iterator[dict[str, Any]]:
    """The records of a tar file, packed or not; ``id`` is the shared name where the JSON has none.

    Links, devices and folders are passed over. Raises DatasetError for a file that is torn, and for a record that is
    too large.
    """
    try:
        with tarfile.open(path, "r|*") as file:
            sample = None
            for member in file:
                place = PurePosixPath(member.name)
                if not member.isreg() or place.name.startswith("."):
                    continue
                name, _, ending = place.name.partition(".")
                key = str(place.with_name(name))
                if sample is not None and sample.key != key:
                    yield sample.record()
                    sample = None
                sample = sample or _Sample(key)
                sample.size += member.size
                stream = file.extractfile(member)
                if sample.size > LARGEST or stream is None:
                    raise DatasetError(f"{path}: {key} has {sample.size:,} bytes, allowed are {LARGEST:,}")
                sample.add(member.name, ending, stream.read())
            if sample is not None:
                yield sample.record()
    except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise DatasetError(f"{path} is not a whole tar file: {error}") from None
