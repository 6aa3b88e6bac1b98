"""Records from JSON, parquet, WebDataset's tar and Hugging Face datasets; embedded images become files.

Whatever the container, what comes out is what its JSON would hold: objects that name images by their path.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from qsit_plugin.evaluation.datasets.json_records import read_records
from qsit_plugin.evaluation.datasets.ratings import DatasetError

from .embedded import ImageFolder
from .problems import BAD_ROW, Problems
from .rows import RowError
from .tables import hub_dataset, parquet, saved_dataset
from .webdataset import FAULT, tar

SPLIT = "__split__"
"""The key of a record's split, where the container has some: training, validation, test."""
Reader = Callable[[Path], Iterator[dict[str, Any]]]
SUFFIXES: dict[str, Reader] = {".parquet": parquet, ".tar": tar, ".tar.gz": tar, ".tgz": tar}
HUB = "hf:"
IMAGE_KEYS = ("image", "images", "img_path")
_SHARD = re.compile(r"(train|training|val|valid|validation|test)[-_.].*")
_SPLITS = {"train": "training", "val": "validation", "valid": "validation"}


def is_container(file: str | Path) -> bool:
    """Whether a FILE is anything but one file of JSON or of a plain table."""
    return str(file).startswith(HUB) or _suffix(Path(file)) is not None or Path(file).is_dir()


def stem(file: str | Path) -> str:
    """The name of a file without what says its form: ``votes`` of votes.tar.gz, ``name`` of hf:owner/name."""
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
        return _json(Path(file))
    images, records = ImageFolder(folder), []
    for position, record in enumerate(_records(file)):
        try:
            if FAULT in record:
                raise RowError(record[FAULT])
            for key in record.keys() & {*image_keys}:
                record[key] = images.unpacked(record[key])
        except RowError as error:
            problems.add(BAD_ROW, f"row {position} ({record.get('id', 'without id')}): {error}")
        else:
            records.append(record)
    if not records and not problems:
        raise DatasetError(f"{file} holds no records")
    return records


def _json(path: Path) -> list[dict[str, Any]]:
    try:
        return read_records(path)
    except FileNotFoundError:
        raise DatasetError(f"{path}: no such file") from None
    except ValueError as error:
        raise DatasetError(str(error)) from None


def _suffix(path: Path) -> str | None:
    return next((suffix for suffix in SUFFIXES if path.name.lower().endswith(suffix)), None)


def _records(file: str | Path) -> Iterator[dict[str, Any]]:
    if str(file).startswith(HUB):
        yield from _of_splits(hub_dataset(str(file).removeprefix(HUB)))
        return
    path = Path(file)
    if not path.exists():
        raise DatasetError(f"{path}: no such file")
    if not path.is_dir():
        yield from SUFFIXES[_suffix(path) or ""](path)
    elif (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
        yield from _of_splits(saved_dataset(path))
    else:
        yield from _shards(path)


def _of_splits(splits: dict[str, Iterator[dict[str, Any]]]) -> Iterator[dict[str, Any]]:
    for name, records in splits.items():
        for record in records:
            yield {SPLIT: _SPLITS.get(name, name), **record} if name else record


def _shards(folder: Path) -> Iterator[dict[str, Any]]:
    """All files of a folder, by name; ``train-00000-of-00002.parquet`` says its split."""
    files = sorted(file for file in folder.rglob("*") if file.is_file() and _suffix(file))
    if not files:
        raise DatasetError(
            f"{folder} is a folder: give the JSON file in it, a folder written by save_to_disk of Hugging Face "
            f"datasets, or one of {', '.join(SUFFIXES)} files"
        )
    for file in files:
        named = _SHARD.fullmatch(file.name)
        yield from _of_splits({named[1] if named else "": SUFFIXES[_suffix(file) or ""](file)})
