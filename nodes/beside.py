"""Small files beside an image: its words as .txt, its score as .json or .xmp. None is ever written over."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qsit_plugin.nodes.errors import InputError
from qsit_plugin.protocol import LEVELS
from qsit_plugin.row_file import why

NONE, JSON, XMP = "none", ".json", ".xmp"
KINDS = (NONE, JSON, XMP)
NUMBERS = dict.fromkeys(("score", "std", *LEVELS), float) | dict.fromkeys(("width", "height", "size", "mtime_ns"), int)


def words_path(image: Path) -> Path:
    """``photo.txt`` of ``photo.png``, where programs that train on pictures look for the caption."""
    return image.with_suffix(".txt")


def score_path(image: Path, kind: str) -> Path:
    """``photo.png.xmp`` of ``photo.png``, as photo tools look for it; JSON likewise."""
    return Path(f"{image}{kind}")


def companions(image: Path) -> list[Path]:
    """The small files of an image that are there: they go where it goes."""
    paths = (words_path(image), score_path(image, JSON), score_path(image, XMP))
    return [path for path in paths if path.is_file() and path != image]


def write_score(image: Path, row: Mapping[str, str], kind: str) -> bool:
    """Write the row of a table as a file beside its image; False where one is there. Raises InputError."""
    from qsit_plugin.bulk.sidecar import sidecar  # not at ComfyUI's start: bulk brings sqlite and much more

    record = {name: NUMBERS.get(name, str)(cell) for name, cell in row.items() if cell}
    text = sidecar(record) if kind == XMP else json.dumps(record, indent=1, ensure_ascii=False) + "\n"
    return write_beside(score_path(image, kind), text)


def write_beside(path: Path, text: str) -> bool:
    """Write a text file in UTF-8; False where one is there, which stays. Raises InputError where that fails."""
    try:
        with path.open("x", encoding="utf-8", newline="\n") as stream:
            stream.write(text)
    except FileExistsError:
        return False
    except OSError as error:
        raise InputError(f"cannot write {path.name}: {why(error)}") from error
    return True


def check_kind(kind: Any) -> None:
    if kind not in KINDS:
        raise InputError(f"sidecars must be one of {', '.join(KINDS)}, got {kind!r}")
