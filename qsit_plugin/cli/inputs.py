"""Paths, folders and patterns of the command line -> the image files to read."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from qsit_plugin.images.errors import ImageError
from qsit_plugin.images.formats import SUFFIXES, left_out, suffix

from .failures import note


def read(names: Iterable[str], *, recursive: bool = True) -> list[Path | ImageError]:
    """Files in the order given, a folder's and a pattern's sorted by name.

    Patterns are matched here because Windows' shells leave that to the program. A folder without images, a pattern
    without a match, or a missing file is an ImageError in its place; a link that leads nowhere or back to itself is one
    when it is read. Folders that are links are not entered, as they may lead back; one that is named itself is. One
    line on stderr counts the pictures in folders that are of no kind that is read.
    """
    skipped: list[str] = []
    items = [item for name in names for item in _expand(name, recursive, skipped)]
    if words := left_out(skipped):
        note(words)
    return items


def _expand(name: str, recursive: bool, skipped: list[str]) -> Iterator[Path | ImageError]:
    plain = os.path.expanduser(name)  # os.path's tests are False where pathlib's raise, for example for a too long name
    path = Path(plain)
    if os.path.isdir(plain):
        yield from _folder(path, recursive, skipped)
    elif os.path.lexists(plain):
        yield path
    elif not glob.has_magic(name):
        yield ImageError(name, "no such file")
    else:
        found = sorted(matches(plain))
        if not found:
            yield ImageError(name, "no file matches this pattern")
        for match in map(Path, found):
            if match.is_dir():
                yield from _folder(match, recursive, skipped)
            else:
                yield match


def matches(pattern: str) -> set[str]:
    """As ``glob.glob`` with ``**``, which would follow links to folders: one that leads back, 40 times over."""
    parts = Path(pattern).parts
    if "**" not in parts:
        return set(glob.glob(pattern))
    at = parts.index("**")
    bases = glob.glob(os.path.join(*parts[:at])) if at else ["."]
    if not parts[at + 1 :]:
        return set(bases)
    found: set[str] = set()
    for base in bases:
        for place, folders, _ in os.walk(base):
            folders[:] = [inner for inner in folders if not inner.startswith(".")]
            place = place if at else os.path.relpath(place).removeprefix(".")
            found |= matches(os.path.join(glob.escape(place), *parts[at + 1 :]))
    return found


def _folder(folder: Path, recursive: bool, skipped: list[str]) -> Iterator[Path | ImageError]:
    """Image files of a folder, by suffix; hidden ones (also macOS' ``._photo.jpg`` twins) are left out."""
    found: list[Path] = []
    denied: list[OSError] = []
    for place, folders, files in os.walk(folder, onerror=denied.append):
        if recursive:
            folders[:] = [inner for inner in folders if not inner.startswith(".")]
        else:
            folders.clear()
        for file in (name for name in files if not name.startswith(".")):
            if suffix(file) in SUFFIXES:
                found.append(Path(place, file))
            else:
                skipped.append(file)
    yield from sorted(found)
    for error in denied:
        yield ImageError(str(error.filename), f"cannot list this folder: {error.strerror}")
    if not found and not denied:
        within = "" if recursive else " itself (its sub-folders were not searched)"
        yield ImageError(str(folder), f"no image files in this folder{within}")
