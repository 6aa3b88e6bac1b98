"""Where the images of a dataset lie, when names in the annotation file and on the disk are not quite the same."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from .ratings import DatasetError, RatedImage


def locate(folder: str | Path, rows: Sequence[RatedImage]) -> list[Path | None]:
    """The file of every row, in order; None where there is none.

    An image is looked for at its path below the folder, then by its name in the whole tree, whatever the case of its
    letters: TID2013 lists ``I01_01_1.bmp`` and ships ``i01_01_1.bmp``, LIVE-C mixes ``.bmp`` and ``.JPG``, and some
    lists carry a folder that the user's copy has not got.

    Raises DatasetError where the folder is missing, or holds two files of one name (for example KonIQ's two sizes).
    """
    root = Path(folder)
    if not root.is_dir():
        raise DatasetError(f"{root}: no such image folder")
    direct = [root / row.image for row in rows]
    found: list[Path | None] = [path if path.is_file() else None for path in direct]
    if None in found:
        tree = _by_name(root)
        found = [path or _match(root, row.image, tree) for path, row in zip(found, rows, strict=True)]
    return found


def _by_name(root: Path) -> dict[str, list[Path]]:
    tree: dict[str, list[Path]] = {}
    for place, folders, files in os.walk(root):
        folders.sort()
        for file in sorted(files):
            tree.setdefault(file.lower(), []).append(Path(place, file))
    return tree


def _match(root: Path, image: str, tree: dict[str, list[Path]]) -> Path | None:
    """The one file of this name, preferring those below the same folders as in the list."""
    wanted = PurePosixPath(image.lower())
    candidates = tree.get(wanted.name, [])
    if len(candidates) > 1:
        parts = wanted.parts
        inside = [path for path in candidates if tuple(p.lower() for p in path.parts[-len(parts) :]) == parts]
        candidates = inside or candidates
    if len(candidates) > 1:
        places = " and ".join(str(path.relative_to(root)) for path in candidates[:2])
        raise DatasetError(f"{root} holds several files for {image}: {places}; give the folder of one kind as --images")
    return candidates[0] if candidates else None
