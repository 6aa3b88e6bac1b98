"""Where the images of a dataset lie, when names in the annotation file and on the disk are not quite the same."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable, Collection, Sequence
from pathlib import Path, PurePosixPath

from .ratings import DatasetError, RatedImage


def locate(folder: str | Path, rows: Sequence[RatedImage]) -> list[Path | None]:
    """The file of every row, in order; None where there is none.

    An image is looked for at its path below the folder (or its absolute path), then by its path and at last by its name
    in the whole tree. Names that are equal letter by letter come first, then those that are equal however their accents
    are encoded (macOS and zip files store decomposed ones), then those that differ in case: TID2013 lists
    ``I01_01_1.bmp`` and ships ``i01_01_1.bmp``, LIVE-C mixes ``.bmp`` and ``.JPG``, and some lists carry a folder that
    the user's copy does not have. A file found by its name alone does not count where it is another row's own.

    Raises DatasetError where the folder is missing, or holds two files of one name (for example KonIQ's two sizes), and
    where two rows are one file: one of their ratings must be wrong.
    """
    root = Path(folder)
    if not root.is_dir():
        raise DatasetError(f"{root}: no such image folder")
    names = [path_below(root, row.image) or row.image for row in rows]
    found: list[Path | None] = [path if (path := root / name).is_file() else None for name in names]
    if None in found:
        tree = FileTree(root)
        found = [path or tree.same_path(name) for path, name in zip(found, names, strict=True)]
        own = {path for path in found if path is not None}
        for number, name in enumerate(names):
            found[number] = found[number] or tree.same_name(name, besides=own)
    _check_one_row_a_file(rows, found)
    return found


def path_below(root: Path, image: str | Path) -> str | None:
    """The path of an absolute ``image`` below ``root``, with forward slashes; None for one outside, or a relative one.

    By the names as they are given, then with links followed, except that of the file itself: datasets may be folders of
    links.
    """
    path = Path(image)
    if not path.is_absolute():
        return None
    file, folder = Path(os.path.abspath(path)), Path(os.path.abspath(root))
    if not file.is_relative_to(folder):
        file, folder = Path(os.path.realpath(file.parent), file.name), Path(os.path.realpath(folder))
    return file.relative_to(folder).as_posix() if file.is_relative_to(folder) else None


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _folded(name: str) -> str:
    return _composed(_composed(name).lower())


ALIKE: tuple[Callable[[str], str], ...] = (str, _composed, _folded)
"""What makes two names alike, the strictest first."""


class FileTree:
    """All files below a folder, by name; read once, on the first question."""

    def __init__(self, root: Path):
        self.root = root
        self._files: dict[str, list[Path]] | None = None

    def same_path(self, image: str) -> Path | None:
        """The one file whose path ends as this image's does. Raises DatasetError where there are several."""
        return self._only(image, lambda file, alike: _ends_alike(file, image, alike))

    def whole_path(self, image: str) -> str | None:
        """The path below the folder of the one file at this very place, with forward slashes."""
        names = PurePosixPath(image).parts

        def fits(file: Path, alike: Callable[[str], str]) -> bool:
            return len(file.relative_to(self.root).parts) == len(names) and _ends_alike(file, image, alike)

        file = self._only(image, fits)
        return None if file is None else file.relative_to(self.root).as_posix()

    def same_name(self, image: str, besides: Collection[Path] = ()) -> Path | None:
        """The one other file of this image's name, in whatever folder. Raises DatasetError where there are several."""
        name = PurePosixPath(image).name
        return self._only(image, lambda file, alike: file not in besides and _ends_alike(file, name, alike))

    def _only(self, image: str, fits: Callable[[Path, Callable[[str], str]], bool]) -> Path | None:
        files = self._named(PurePosixPath(image).name)
        for alike in ALIKE:
            candidates = [file for file in files if fits(file, alike)]
            if len(candidates) > 1:
                places = " and ".join(str(path.relative_to(self.root)) for path in candidates[:2])
                raise DatasetError(
                    f"{self.root} holds several files for {image}: {places}; give the folder of one kind as --images"
                )
            if candidates:
                return candidates[0]
        return None

    def _named(self, name: str) -> list[Path]:
        if self._files is None:
            self._files = {}
            for place, folders, files in os.walk(self.root):
                folders.sort()
                for file in sorted(files):
                    self._files.setdefault(_folded(file), []).append(Path(place, file))
        return self._files.get(_folded(name), [])


def _ends_alike(file: Path, image: str, alike: Callable[[str], str]) -> bool:
    wanted = [alike(part) for part in PurePosixPath(image).parts]
    return [alike(part) for part in file.parts[-len(wanted) :]] == wanted


def _check_one_row_a_file(rows: Sequence[RatedImage], found: Sequence[Path | None]) -> None:
    """On a disk that ignores case ``1.jpg`` and ``1.JPG`` are there both, so paths alike are asked whether they are
    one file."""
    seen: dict[str, list[tuple[RatedImage, Path]]] = {}
    for row, path in zip(rows, found, strict=True):
        if path is None:
            continue
        alike = seen.setdefault(_folded(os.path.abspath(path)), [])
        for other, place in alike:
            if place == path or place.samefile(path):
                raise one_file(other, row, path)
        alike.append((row, path))


def one_file(first: RatedImage, second: RatedImage, path: str | Path) -> DatasetError:
    """The error of two rows that are about one file, which names both."""
    return DatasetError(
        f"the rows {first.image} (rated {first.mos:g}) and {second.image} (rated {second.mos:g}) are one file, {path}: "
        "keep the right one of them in the table"
    )
