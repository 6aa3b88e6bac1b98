"""Datasets of photos as people took them, and of generated images: KonIQ-10k, SPAQ, LIVE-C, AGIQA-3K, and any csv."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from .ratings import DatasetError, RatedImage
from .tables import Record, load_mat, rated, read_table

LIVEC_FILES = ("AllMOS_release", "AllImages_release", "AllStdDev_release")
LIVEC_TRAINING_IMAGE = re.compile(r"t\d+\.bmp", re.IGNORECASE)
LIVEC_SAME_PICTURE = {"333.bmp": "246.bmp"}
"""Listed twice, with MOS 51.1 and 52.0; one source, so that the bootstrap draws both or none."""
VOTES = ("c5", "c4", "c3", "c2", "c1")
"""KonIQ's columns from excellent (5) to bad (1)."""


def read_koniq(path: Path, bad: list[str] | None = None) -> list[RatedImage]:
    """KonIQ-10k: ``koniq10k_distributions_sets.csv`` (vote shares, split) or ``koniq10k_scores_and_distributions.csv``.

    ``mos`` is the mean z-score on 0-100 in both: column ``MOS`` of the first, ``MOS_zscore`` of the second, whose
    ``MOS`` is on 1-5. ``sd`` is the standard deviation of the votes, times 25 to bring it from 1-5 to 0-100. The second
    form counts votes and has no split.
    """
    records = read_table(path, ["image_name", *VOTES, "MOS", "SD"])
    return rated(records, _koniq_row, bad)


def _koniq_row(record: Record) -> RatedImage:
    counts = [record.number(name) for name in VOTES]
    if min(counts) < 0 or sum(counts) <= 0:
        raise DatasetError(f"{record.place}: votes c1 to c5 must be shares or counts, got {counts[::-1]}")
    mos = record.number("MOS_zscore" if record.has("MOS_zscore") else "MOS")
    sd = record.number_if_any("SD")
    return RatedImage(
        image=record.text("image_name"),
        mos=mos,
        quality=mos,
        sd=None if sd is None else 25.0 * sd,
        votes=tuple(count / sum(counts) for count in counts),
        split=record.text("set") if record.has("set") else None,
    )


def read_spaq(path: Path, bad: list[str] | None = None) -> list[RatedImage]:
    """SPAQ: ``MOS and Image attribute scores.xlsx``, columns ``Image name`` and ``MOS`` (0-100). No official split."""
    records = read_table(path, ["Image name", "MOS"])
    return rated(records, lambda record: _plain(record.text("Image name"), record.number("MOS")), bad)


def read_agiqa3k(path: Path, bad: list[str] | None = None) -> list[RatedImage]:
    """AGIQA-3K: ``data.csv``, columns ``name``, ``mos_quality`` (0-5) and ``std_quality``."""
    records = read_table(path, ["name", "mos_quality", "std_quality"])
    return rated(
        records,
        lambda record: _plain(record.text("name"), record.number("mos_quality"), record.number_if_any("std_quality")),
        bad,
    )


def read_livec(path: Path, bad: list[str] | None = None) -> list[RatedImage]:
    """LIVE in the Wild (LIVE-C): ``AllMOS_release.mat`` with ``AllImages_release.mat`` and ``AllStdDev_release.mat``.

    ``path``: one of the three files, or the folder that holds them. 1,169 entries, of which the seven training images
    of the study (``t1.bmp`` to ``t7.bmp``, in a folder apart) are dropped: published figures are on the
    other 1,162. MOS 0-100. There is no official split; ``split`` is ``livec_half``.
    """
    folder = path if path.is_dir() else path.parent
    absent = [f"{name}.mat" for name in LIVEC_FILES if not (folder / f"{name}.mat").is_file()]
    if absent:
        raise DatasetError(f"{folder} lacks {', '.join(absent)}: LIVE-C's ratings are in three files of one folder")
    mos, images, sd = (load_mat(folder / f"{name}.mat", name) for name in LIVEC_FILES)
    names = [str(np.asarray(cell).item()) for cell in np.asarray(images).ravel()]  # a MATLAB cell array of strings
    columns = np.asarray(mos, dtype=float).ravel(), np.asarray(sd, dtype=float).ravel()
    if {len(column) for column in columns} != {len(names)}:
        lengths = f"{len(names)} names, {len(columns[0])} MOS, {len(columns[1])} standard deviations"
        raise DatasetError(f"the three files of {folder} do not belong together: {lengths}")
    photos = [row for row in zip(names, *columns, strict=True) if not LIVEC_TRAINING_IMAGE.fullmatch(row[0])]
    return rated(photos, _livec_row, bad)


def _livec_row(row: tuple[str, float, float]) -> RatedImage:
    name, mos, sd = row
    if not np.isfinite(mos) or np.isinf(sd):
        raise DatasetError(f"{name} of LIVE-C: MOS {mos} and standard deviation {sd} must be finite numbers")
    known = None if np.isnan(sd) else float(sd)
    source = LIVEC_SAME_PICTURE.get(name, name)
    return RatedImage(name, float(mos), float(mos), known, split=livec_half(name), source=source)


def livec_half(name: str) -> str:
    """The half that a photo belongs to: "validation" where the MD5 of its name is even, "test" where it is odd."""
    return "test" if int(hashlib.md5(name.encode(), usedforsecurity=False).hexdigest(), 16) % 2 else "validation"


@dataclass(frozen=True)
class Columns:
    """Which columns of a csv (or xlsx) of the user hold what."""

    image: str = "image"
    mos: str = "mos"
    split: str | None = None
    group: str | None = None
    distortion: str | None = None
    lower_is_better: bool = False
    sd: str | None = None


def read_columns(path: Path, columns: Columns, bad: list[str] | None = None) -> list[RatedImage]:
    """Any table with named columns, all of which are kept.

    A row without a value in the column of deviations has no ``sd``; what else is wrong there makes it a bad row.
    """
    optional = [name for name in (columns.split, columns.group, columns.distortion, columns.sd) if name]
    records = read_table(path, [columns.image, columns.mos, *optional])
    return rated(records, lambda record: replace(rated_row(record, columns), columns=record.texts()), bad)


def rated_row(record: Record, columns: Columns) -> RatedImage:
    """The rating of a row, without its further columns; ``quality`` is the negative rating where lower is better.

    Raises DatasetError for a row without an image, or with text in the place of a number.
    """
    mos = record.number(columns.mos)
    split, group, distortion = (
        record.text(name) if name and record.has(name) else None
        for name in (columns.split, columns.group, columns.distortion)
    )
    quality = -mos if columns.lower_is_better else mos
    sd = record.number_if_any(columns.sd) if columns.sd else None
    return RatedImage(
        record.text(columns.image), mos, quality, sd, split=split, source=group or "", distortion=distortion
    )


def _plain(image: str, mos: float, sd: float | None = None) -> RatedImage:
    return RatedImage(image, mos, mos, sd)
