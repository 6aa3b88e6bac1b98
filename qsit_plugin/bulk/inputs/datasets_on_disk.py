"""Hugging Face datasets as ``save_to_disk`` writes them -> their images, in constant memory. Needs pyarrow alone."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from functools import partial
from typing import Any

from qsit_plugin.images.errors import ImageError

from .source import Source, check_size, file_source, not_empty

STATE, SUFFIX = "state.json", ".arrow"


def is_dataset(folder: str) -> bool:
    """Whether ``save_to_disk`` wrote this folder, of one split."""
    return all(os.path.isfile(os.path.join(folder, name)) for name in (STATE, "dataset_info.json"))


def dataset(folder: str, column: str | None = None) -> Iterator[Source | ImageError]:
    """The images of a dataset, see ``arrow_file``."""
    try:
        with open(os.path.join(folder, STATE), encoding="utf-8") as file:
            state = json.load(file)
        names = [os.fspath(one["filename"]) for one in state["_data_files"]]
    except (OSError, ValueError, LookupError, TypeError) as error:
        yield ImageError(folder, f"its {STATE} cannot be read ({error}); save the dataset again with save_to_disk")
        return
    if state.get("_indices_data_files"):
        yield ImageError(folder, "rows chosen by an indices file; save the dataset again with save_to_disk")
        return
    for name in names:
        yield from arrow_file(os.path.join(folder, name), column)


def arrow_file(path: str, column: str | None = None) -> Iterator[Source | ImageError]:
    """The images in one file of a dataset, under ``FILE.arrow/ROW``; it is mapped, and only what is read takes memory.

    ``column``: which holds them; None: the only one whose feature is ``Image``.
    """
    try:
        import pyarrow
    except ImportError:
        yield ImageError(path, "datasets need pyarrow, which is not installed: pip install 'qsit-plugin[bulk]'")
        return
    try:
        version = os.stat(path).st_mtime_ns
        with pyarrow.memory_map(path) as mapped, pyarrow.ipc.open_stream(mapped) as batches:
            place = _column(path, batches.schema, column)
            row = 0
            for batch in batches:
                for image in _images(batch.column(place)):
                    yield _source(f"{path}/{row}", image, version)
                    row += 1
    except ImageError as error:
        yield error
    except FileNotFoundError:
        yield ImageError(path, "no such file")
    except (pyarrow.ArrowException, OSError, ValueError, AttributeError) as error:
        yield ImageError(path, f"not a whole file of a dataset ({error}); get it again")


def _column(path: str, schema: Any, column: str | None) -> int:
    """Number of the column with the images. Raises ImageError, which names those that there are."""
    found = [name for name in schema.names if _holds_images(schema, name)]
    if column is None and len(found) == 1:
        return schema.get_field_index(found[0])
    if column in schema.names:
        kind = str(schema.field(column).type)
        if column in found or kind in ("binary", "large_binary"):
            return schema.get_field_index(column)
        raise ImageError(
            path, f"column {column!r} holds {kind}, no images; give --image-column one of: {_names(found)}"
        )
    given = f"no column {column!r}" if column is not None else f"{len(found) or 'no'} columns of images"
    raise ImageError(path, f"{given}; give --image-column one of: {_names(found or schema.names)}")


def _holds_images(schema: Any, name: str) -> bool:
    """Whether the dataset calls it an ``Image``; where it calls it nothing, whether it looks like one."""
    about = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    features = about.get("info", {}).get("features") or {}
    if name in features:
        return isinstance(features[name], dict) and features[name].get("_type") == "Image"
    kind = schema.field(name).type
    return getattr(kind, "num_fields", 0) == 2 and {kind.field(0).name, kind.field(1).name} == {"bytes", "path"}


def _names(names: list[str]) -> str:
    return ", ".join(names) or "(none)"


def _images(cells: Any) -> Iterator[tuple[Any, str | None]]:
    """Of each row the bytes, as a scalar that is not read yet, and the path; None where it has none."""
    names = [field.name for field in cells.type] if str(cells.type).startswith("struct") else []
    if not names:
        yield from ((cell, None) for cell in cells)
        return
    parts = dict(zip(names, cells.flatten(), strict=True))
    for content, path in zip(parts["bytes"], parts["path"], strict=True):
        yield content, path.as_py()


def _source(name: str, image: tuple[Any, str | None], version: int | None) -> Source:
    content, path = image
    if content.is_valid:
        buffer = content.as_buffer()
        return Source(name, buffer.size, version, partial(_taken, name, buffer))
    if path is None:
        return Source(name, None, None, partial(_nothing, name))
    outside = file_source(os.path.abspath(path))
    return Source(name, outside.size, outside.mtime_ns, outside.read)


def _taken(name: str, buffer: Any) -> bytes:
    check_size(name, buffer.size)
    return not_empty(name, buffer.to_pybytes())


def _nothing(name: str) -> bytes:
    raise ImageError(name, "no image in this row of the dataset")
