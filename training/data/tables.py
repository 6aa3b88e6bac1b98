"""Parquet files and Hugging Face datasets as records, through Arrow: images stay the bytes that are stored."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from qsit_plugin.evaluation.datasets.ratings import DatasetError

AT_ONCE = 32
"""Rows in memory with their images."""
INSTALL = 'pip install "qsit-plugin[datasets]"'


def parquet(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a parquet file. Raises DatasetError, and ModuleNotFoundError without pyarrow."""
    try:
        import pyarrow
        from pyarrow.parquet import ParquetFile
    except ModuleNotFoundError as error:
        raise _needs(error, "pyarrow", path) from None
    try:
        with ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=AT_ONCE):
                yield from map(_plain, batch.to_pylist())
    except (pyarrow.ArrowException, OSError) as error:
        raise DatasetError(f"{path} is not a whole parquet file: {' '.join(str(error).split())}") from None


def saved_dataset(folder: Path) -> dict[str, Iterator[dict[str, Any]]]:
    """The rows of each split of a folder written by ``save_to_disk``; "" where it has none."""
    try:
        from datasets import load_from_disk
    except ModuleNotFoundError as error:
        raise _needs(error, "datasets", folder) from None
    try:
        return _splits(load_from_disk(str(folder)))
    except (OSError, ValueError) as error:
        raise DatasetError(f"{folder} is not a whole dataset: {' '.join(str(error).split())}") from None


def hub_dataset(name: str) -> dict[str, Iterator[dict[str, Any]]]:
    """The rows of each split of a dataset of the Hugging Face hub, which is downloaded."""
    try:
        from datasets import load_dataset
        from datasets.exceptions import DatasetsError
    except ModuleNotFoundError as error:
        raise _needs(error, "datasets", f"hf:{name}") from None
    try:
        return _splits(load_dataset(name))
    except (DatasetsError, OSError, ValueError) as error:
        raise DatasetError(
            f"the dataset {name} cannot be had from the Hugging Face hub: {' '.join(str(error).split())}. Without a "
            "connection, give the folder of a copy written by save_to_disk, or of its parquet files"
        ) from None


def _splits(dataset: Any) -> dict[str, Iterator[dict[str, Any]]]:
    splits = dataset if isinstance(dataset, dict) else {"": dataset}
    return {name: _rows(rows) for name, rows in splits.items()}


def _rows(dataset: Any) -> Iterator[dict[str, Any]]:
    for table in dataset.with_format("arrow").iter(batch_size=AT_ONCE):  # not decoded, as the image feature would be
        yield from map(_plain, table.to_pylist())


def _plain(record: dict[str, Any]) -> dict[str, Any]:
    """Without the empty fields of nested records: a table gives every part of a message every key."""
    return {key: _without_nothing(value) for key, value in record.items()}


def _without_nothing(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_nothing(item) for item in value]
    if isinstance(value, dict):
        return {key: _without_nothing(item) for key, item in value.items() if item is not None}
    return value


def _needs(error: ModuleNotFoundError, package: str, file: object) -> ModuleNotFoundError:
    return ModuleNotFoundError(f"{package} is needed for {file} and not installed: {INSTALL}", name=error.name)
