"""What the user named on the command line -> the image files to read."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from qsit_plugin.images import ImageError

SUFFIXES = frozenset(
    (
        ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".dib", ".gif", ".tif", ".tiff",
        ".avif", ".heic", ".heif", ".jp2", ".ppm", ".pgm", ".pbm", ".pnm", ".tga",
    )
)  # fmt: skip
"""Files in a folder that are taken for images. A file that is named itself is read whatever its suffix."""


def expand(names: Iterable[str], *, recursive: bool = True) -> list[Path | ImageError]:
    """Files in the order given, a folder's and a pattern's sorted by name.

    Patterns are matched here because Windows' shells leave that to the program. A folder without images, a pattern
    without a match, or a missing file is an ImageError in its place.
    """
    return [item for name in names for item in _expand(name, recursive)]


def _expand(name: str, recursive: bool) -> Iterator[Path | ImageError]:
    plain = os.path.expanduser(name)  # os.path's tests are False where pathlib's raise, for example for a too long name
    path = Path(plain)
    if os.path.isdir(plain):
        yield from _folder(path, recursive)
    elif os.path.exists(plain):
        yield path
    elif not glob.has_magic(name):
        yield ImageError(name, "no such file")
    else:
        matches = sorted(glob.glob(plain, recursive=True))
        if not matches:
            yield ImageError(name, "no file matches this pattern")
        for match in map(Path, matches):
            if match.is_dir():
                yield from _folder(match, recursive)
            else:
                yield match


def _folder(folder: Path, recursive: bool) -> Iterator[Path | ImageError]:
    """Image files of a folder, by suffix; hidden ones (also macOS' ``._photo.jpg`` twins) are left out."""
    found: list[Path] = []
    denied: list[OSError] = []
    for place, folders, files in os.walk(folder, onerror=denied.append):
        if recursive:
            folders[:] = [inner for inner in folders if not inner.startswith(".")]
        else:
            folders.clear()
        found += [
            Path(place, file) for file in files if Path(file).suffix.lower() in SUFFIXES and not file.startswith(".")
        ]
    yield from sorted(found)
    for error in denied:
        yield ImageError(str(error.filename), f"cannot list this folder: {error.strerror}")
    if not found and not denied:
        within = "" if recursive else " itself (its sub-folders were not searched)"
        yield ImageError(str(folder), f"no image files in this folder{within}")
