"""Records from JSON, parquet, WebDataset's tar and Hugging Face datasets; embedded images become files.

Whatever the container, what comes out is what its JSON would hold: objects that name images by their path. Parquet and
datasets are read through Arrow, so that images stay the bytes that are stored; they are never encoded again.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from PIL import Image

from qsit_plugin.evaluation.datasets.json_records import read_records
from qsit_plugin.evaluation.datasets.ratings import DatasetError
from qsit_plugin.images.formats import SUFFIXES as IMAGE_SUFFIXES

from .checks import Problems
from .rows import RowError
from .webdataset import FAULT, tar

SPLIT = "__split__"
"""The key of a record's split, where the container has some: training, validation, test."""
HUB = "hf:"
IMAGE_KEYS = ("image", "images", "img_path")
_SHARD = re.compile(r"(train|training|val|valid|validation|test)[-_.].*")
_SPLITS = {"train": "training", "val": "validation", "valid": "validation"}


def is_container(file: str | Path) -> bool:
    """Whether a FILE is anything but one file of JSON or of a plain table."""
    return str(file).startswith(HUB) or _suffix(Path(file)) is not None or Path(file).is_dir()


def stem(file: str | Path) -> str:
    """The name of a file without its suffix: ``votes`` of votes.tar.gz, ``name`` of hf:owner/name."""
    path = Path(str(file).removeprefix(HUB))
    return path.name.removesuffix(_suffix(path) or path.suffix)


def read_any(
    file: str | Path, folder: Path, problems: Problems, image_keys: tuple[str, ...] = IMAGE_KEYS
) -> list[dict[str, Any]]:
    """All records of a file, in order.

    Args:
        file: JSON or JSON lines; ``.parquet``; ``.tar``, ``.tar.gz`` (WebDataset); a folder written by ``save_to_disk``
            of Hugging Face datasets, or one of parquet files or tars; or ``hf:owner/name``.
        folder: where embedded images are written, as they are stored; made where it is not there.
        problems: takes a record whose image cannot be written.
        image_keys: under which images are embedded.

    Raises DatasetError for what cannot be read as a whole; ModuleNotFoundError with the pip command where a library is
    missing.
    """
    if not is_container(file):
        try:
            return read_records(file)
        except FileNotFoundError:
            raise DatasetError(f"{file}: no such file") from None
        except ValueError as error:
            raise DatasetError(str(error)) from None
    records = []
    for position, record in enumerate(_records(str(file))):
        try:
            if FAULT in record:
                raise RowError(record[FAULT])
            for key in record.keys() & {*image_keys}:
                record[key] = unpacked(record[key], folder)
            records.append(record)
        except RowError as error:
            problems.add(error.kind, f"row {position} ({record.get('id', 'without id')}): {error}")
    if not records and not problems:
        raise DatasetError(f"{file} holds no records")
    return records


# ---- the kinds of containers ----


def _suffix(path: Path) -> str | None:
    return next((suffix for suffix in SUFFIXES if path.name.lower().endswith(suffix)), None)


def _records(file: str) -> Iterator[dict[str, Any]]:
    path = Path(file)
    if file.startswith(HUB):
        return _dataset(file)
    if not path.exists():
        raise DatasetError(f"{path}: no such file")
    if not path.is_dir():
        return SUFFIXES[_suffix(path) or ""](path)
    saved = (path / "dataset_dict.json").is_file() or (path / "state.json").is_file()
    return _dataset(file) if saved else _shards(path)


def _shards(folder: Path) -> Iterator[dict[str, Any]]:
    """All files of a folder, by name; ``train-00000-of-00002.parquet`` names its split."""
    files = sorted(file for file in folder.rglob("*") if file.is_file() and _suffix(file))
    if not files:
        raise DatasetError(
            f"{folder} is a folder: give the JSON file in it, a folder written by save_to_disk of Hugging Face "
            f"datasets, or one of {', '.join(SUFFIXES)} files"
        )
    for file in files:
        named = _SHARD.fullmatch(file.name)
        yield from _of_split(named[1] if named else "", SUFFIXES[_suffix(file) or ""](file))


def _of_split(name: str, records: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for record in records:
        yield {SPLIT: _SPLITS.get(name, name), **record} if name else record


AT_ONCE = 32
"""Rows of a table in memory with their images."""


def parquet(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a parquet file. Raises DatasetError, and ModuleNotFoundError without pyarrow."""
    try:
        import pyarrow
        from pyarrow.parquet import ParquetFile
    except ModuleNotFoundError as error:
        raise _needs(error, path) from None
    try:
        with ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=AT_ONCE):
                yield from map(_plain, batch.to_pylist())
    except (pyarrow.ArrowException, OSError) as error:
        raise DatasetError(f"{path} is not a whole parquet file: {' '.join(str(error).split())}") from None


SUFFIXES = {".parquet": parquet, ".tar": tar, ".tar.gz": tar, ".tgz": tar}


def _dataset(file: str) -> Iterator[dict[str, Any]]:
    """The rows of all splits of a folder written by ``save_to_disk``, or of a dataset of the hub, which is downloaded.

    Raises DatasetError, and ModuleNotFoundError without datasets.
    """
    try:
        from datasets import load_dataset, load_from_disk
        from datasets.exceptions import DatasetsError
    except ModuleNotFoundError as error:
        raise _needs(error, file) from None
    name = file.removeprefix(HUB)
    try:
        found = load_from_disk(file) if name == file else load_dataset(name)
    except (DatasetsError, OSError, ValueError) as error:
        text = " ".join(str(error).split())
        raise DatasetError(
            f"{file} is not a whole dataset: {text}"
            if name == file
            else f"the dataset {name} cannot be had from the Hugging Face hub: {text}. Without a connection, give the "
            "folder of a copy written by save_to_disk, or of its parquet files"
        ) from None
    for split, rows in found.items() if isinstance(found, dict) else [("", found)]:
        for table in rows.with_format("arrow").iter(batch_size=AT_ONCE):  # not decoded, as the image feature would be
            yield from _of_split(split, map(_plain, table.to_pylist()))


def _plain(record: dict[str, Any]) -> dict[str, Any]:
    """Without the empty fields of nested records: a table gives every part of a message every key."""
    return {key: _without_nothing(value) for key, value in record.items()}


def _without_nothing(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_nothing(item) for item in value]
    if isinstance(value, dict):
        return {key: _without_nothing(item) for key, item in value.items() if item is not None}
    return value


def _needs(error: ModuleNotFoundError, file: object) -> ModuleNotFoundError:
    package = (error.name or "").partition(".")[0]
    return ModuleNotFoundError(
        f'{package} is needed for {file} and not installed: pip install "qsit-plugin[datasets]"', name=error.name
    )


# ---- embedded images ----

_PLAIN_NAME = re.compile(r"\w[\w .+-]{0,150}")
"""A part of a path that is a name on every system, and leads nowhere."""


def unpacked(value: Any, folder: Path) -> Any:
    """A path below the folder in the place of each embedded image; anything else as it is.

    Embedded are bytes, Hugging Face's ``{"bytes", "path"}``, and ``{"bytes", "name"}`` with a path in the container,
    which nobody has checked; a dict without bytes is its path. Raises RowError for bytes that are no image.
    """
    if isinstance(value, list):
        return [unpacked(item, folder) for item in value]
    if isinstance(value, bytes):
        value = {"bytes": value}
    if not isinstance(value, dict):
        return value
    if not isinstance(value.get("bytes"), bytes):
        return value.get("path")
    name = value.get("name") or PurePosixPath(str(value.get("path") or "")).name
    return _write(value["bytes"], str(name), folder)


def _write(content: bytes, name: str, folder: Path) -> str:
    """The path of the file below the folder: its own name, or, where that is no plain one or another image has it,
    ``<sha1>.<suffix>``. A file that is there is never overwritten. Raises RowError."""
    suffix = PurePosixPath(name).suffix
    suffix = suffix if suffix.lower() in IMAGE_SUFFIXES else _suffix_of(content)
    digest = hashlib.sha1(content, usedforsecurity=False).hexdigest()
    for path in (f"{name.removesuffix(suffix)}{suffix}", f"{digest}{suffix}"):
        if all(map(_PLAIN_NAME.fullmatch, path.split("/"))) and _is_or_becomes(folder / path, content):
            return path
    raise RowError(f"{folder / path} is there already, and is another file: give an empty folder as --images")


def _is_or_becomes(file: Path, content: bytes) -> bool:
    """Whether the file has this content, or could be given it; False where something else has its name, or its
    folder's."""
    if os.path.lexists(file):
        return file.is_file() and file.stat().st_size == len(content) and file.read_bytes() == content
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        return False
    unpacking = file.with_name(f".unpacking-{os.getpid()}")
    unpacking.write_bytes(content)
    os.replace(unpacking, file)  # whole or not at all
    return True


def _suffix_of(content: bytes) -> str:
    try:
        with Image.open(io.BytesIO(content)) as picture:
            return f".{(picture.format or '').lower()}"
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise RowError(f"its embedded image is not one that can be read: {error}") from None
