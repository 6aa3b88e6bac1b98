"""BIQ2021: 12,000 photos in three subsets (Ahmed and Asif, 2022), its near twins and its scenes.

Two lists lie in ``data``, photo names only. ``biq2021_twins.csv``: pairs of a test photo and a training photo that show
nearly the same (perceptual hash and thumbnails). ``biq2021_scenes.txt``: photos of one scene, a line each; made by
``benchmarks/biq2021_scenes.py``. ``ss01`` is series of one scene with other exposure and focus, so that a split by
single photos, as the official one, puts nearly every scene into both splits.
"""

from __future__ import annotations

import csv
import re
from functools import cache
from importlib.resources import files
from pathlib import Path

from .ratings import DatasetError, RatedImage
from .tables import Record, rated, read_table

FILES = {"training": "Train (Images and MOS).csv", "test": "Test (Images and MOS).csv"}
"""The annotation file of each split, as published."""

_NAME = re.compile(r"(?P<subset>ss0[123]) \((?P<number>\d+)\)\.jpg", re.IGNORECASE)


def read_biq2021(path: Path, bad: list[str] | None = None) -> list[RatedImage]:
    """BIQ2021: ``Train (Images and MOS).csv`` and ``Test (Images and MOS).csv``, columns ``Image Name`` and ``MOS``.

    ``path``: the folder that holds both, or one of them, which then is its split alone. MOS 0-1, no deviation. Column
    ``subset``: ss01, ss02 or ss03, of the name. ``source``: the scene. ``twins``: by the list of this package.
    """
    if not path.is_dir():
        return _split(path, _split_of(path), bad)
    absent = [name for name in FILES.values() if not (path / name).is_file()]
    if absent:
        raise DatasetError(
            f"{path} lacks {' and '.join(absent)}: BIQ2021's ratings are in two files; to use one split alone, give "
            "its file instead of the folder"
        )
    return [row for split, name in FILES.items() for row in _split(path / name, split, bad)]


def _split_of(path: Path) -> str:
    for split, name in FILES.items():
        if path.name.lower().startswith(name.split()[0].lower()):
            return split
    raise DatasetError(
        f"{path.name} does not say which split of BIQ2021 it is: name it as published, {' or '.join(FILES.values())}, "
        "or give the folder of both"
    )


def _split(path: Path, split: str, bad: list[str] | None) -> list[RatedImage]:
    return rated(read_table(path, ["Image Name", "MOS"]), lambda record: _row(record, split), bad)


def _row(record: Record, split: str) -> RatedImage:
    name, mos = record.text("Image Name"), record.number("MOS")
    match = _NAME.fullmatch(name)
    if match is None:
        raise DatasetError(f"{record.place}: {name!r} is not named like 'ss01 (1).jpg', with ss01, ss02 or ss03")
    if not 0.0 <= mos <= 1.0:
        raise DatasetError(f"{record.place}: a MOS of BIQ2021 is from 0 to 1, got {mos:g}")
    return RatedImage(
        image=name,
        mos=mos,
        quality=mos,
        split=split,
        source=scene_of(name),
        twins=_twins().get(name.lower(), ()),
        columns={"subset": match["subset"].lower()},
    )


def scene_of(name: str) -> str:
    """The first photo of the scene that a photo belongs to; its own name where it is alone."""
    return _scenes().get(name.lower(), name)


@cache
def _scenes() -> dict[str, str]:
    """Photo in lower case -> first photo of its scene. A line of the list: ``ss01 (103-115); ss01 (120)``."""
    found: dict[str, str] = {}
    for line in _data("biq2021_scenes.txt").splitlines():
        photos = [photo for part in line.split(";") for photo in _photos(part.strip())]
        found |= dict.fromkeys(photos, photos[0])
    return found


def _photos(part: str) -> list[str]:
    subset, numbers = part.removesuffix(")").split(" (")
    first, _, last = numbers.partition("-")
    return [f"{subset} ({number}).jpg" for number in range(int(first), int(last or first) + 1)]


@cache
def _twins() -> dict[str, tuple[str, ...]]:
    """Photo in lower case -> its near twins in the other split, for both sides of every pair."""
    found: dict[str, tuple[str, ...]] = {}
    for pair in csv.DictReader(_data("biq2021_twins.csv").splitlines()):
        for one, other in ((pair["test"], pair["training"]), (pair["training"], pair["test"])):
            found[one] = (*found.get(one, ()), other)
    return found


def _data(name: str) -> str:
    return files("qsit_plugin.evaluation").joinpath("data", name).read_text(encoding="utf-8")
