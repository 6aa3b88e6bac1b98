"""Tar files of WebDataset: members that share a name up to its first dot are one record.

``0001.jpg`` and ``0001.json``: the fields of the JSON, and the picture under ``image``. ``0001.txt`` becomes the field
``txt``. Read as a stream, one member after the other; nothing but pictures is written, see ``embedded``.
"""

from __future__ import annotations

import io
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

LARGEST_TEXT = 1 << 24
"""Bytes of a member that is no picture."""
LARGEST_IMAGE = 1 << 28
"""Bytes of a picture: a record's pictures are in memory until it is whole."""


@dataclass
class _Sample:
    key: str
    fields: dict[str, Any] = field(default_factory=dict)
    pictures: list[Embedded] = field(default_factory=list)

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

    Links, devices and folders are passed over. Raises DatasetError for a file that is torn, a member that is too large,
    and JSON that is no object.
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
                _add(sample, ending, member.name, _content(member, file, path), path)
            if sample is not None:
                yield sample.record()
    except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise DatasetError(f"{path} is not a whole tar file: {error}") from None


def _is_picture(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in SUFFIXES


def _content(member: tarfile.TarInfo, file: tarfile.TarFile, path: Path) -> bytes:
    largest = LARGEST_IMAGE if _is_picture(member.name) else LARGEST_TEXT
    if member.size > largest:
        raise DatasetError(f"{path}: {member.name} has {member.size:,} bytes, allowed are {largest:,}")
    stream = file.extractfile(member)
    return b"" if stream is None else stream.read()


def _add(sample: _Sample, ending: str, name: str, content: bytes, path: Path) -> None:
    if _is_picture(name):
        sample.pictures.append(Embedded(io.BytesIO(content), name.removeprefix("./")))
    elif ending == "json":
        try:
            fields = json.loads(content)
        except ValueError as error:
            raise DatasetError(f"{path}: {name} is not valid JSON: {error}") from None
        if not isinstance(fields, dict):
            raise DatasetError(f"{path}: {name} must be a JSON object, it is {fields!r:.60}")
        sample.fields.update(fields)
    else:
        sample.fields[ending] = content.decode("utf-8", "replace").strip()
