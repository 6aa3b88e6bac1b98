"""The datasets by name: how they are read, how large they must be, and where their images lie."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .authentic import Columns, read_agiqa3k, read_columns, read_koniq, read_livec, read_spaq
from .biq2021 import FILES as BIQ2021_FILES
from .biq2021 import read_biq2021
from .holdout import hold_out, torn_sources
from .ratings import DatasetError, RatedImage
from .synthetic import read_csiq, read_kadid10k, read_tid2013

CUSTOM = "csv"
"""The name under which a table of the user is read."""


@dataclass(frozen=True)
class Dataset:
    """A published dataset: its reader and its known size, by which a truncated or wrong file is noticed."""

    name: str
    title: str
    read: Callable[[Path, list[str] | None], list[RatedImage]]
    """Takes the annotation file, and where malformed rows are to be noted; without that they raise."""
    n: int | None
    """How many rows it has; None for a table of the user."""
    scale: str
    annotation: str
    """Name of the annotation file, as published."""
    splits: Mapping[str, int] = field(default_factory=dict)
    lower_is_better: bool = False
    folder: bool = False
    """Whether the annotations are several files, so that their folder may be given, too."""
    file_per_split: bool = False
    """Whether one of the files is a split, and whole without the others."""
    official_splits: bool = True
    """Whether the splits are the authors'; those that are not are used only where they are asked for."""
    group_by: tuple[str, ...] = ()
    """Columns by which figures are always shown."""
    note: str = ""
    """What else a reader of the figures must know."""

    def size(self, rows: list[RatedImage]) -> tuple[int | None, str]:
        """How many rows the file must have, and of what: all, or the split that the file is."""
        found = {row.split or "" for row in rows}
        alone = found.pop() if self.file_per_split and len(found) == 1 else "all"
        return self.splits.get(alone, self.n), alone


_KONIQ_SPLITS = {"training": 7058, "validation": 1000, "test": 2015}
_LIVEC_NOTE = """\
The splits are not official: even (validation) and odd (test) MD5 of the file name. 246 and 333 are one picture."""
_BIQ2021_NOTE = """\
EXIF orientation is not applied (291 photos carry one), as in the released procedure of Q-SiT. 213 photos of the
official test split have a near twin in the training split, and 332 of its 335 photos of ss01 are of scenes in it."""
DATASETS = {
    dataset.name: dataset
    for dataset in (
        Dataset("koniq", "KonIQ-10k", read_koniq, 10_073, "MOS 0-100",
                "koniq10k_distributions_sets.csv or koniq10k_scores_and_distributions.csv", _KONIQ_SPLITS),
        Dataset("spaq", "SPAQ", read_spaq, 11_125, "MOS 0-100", "MOS and Image attribute scores.xlsx"),
        Dataset("kadid10k", "KADID-10k", read_kadid10k, 10_125, "MOS 1-5", "dmos.csv"),
        Dataset("livec", "LIVE in the Wild", read_livec, 1_162, "MOS 0-100", "AllMOS_release.mat",
                {"validation": 588, "test": 574}, folder=True, official_splits=False, note=_LIVEC_NOTE),
        Dataset("biq2021", "BIQ2021", read_biq2021, 12_000, "MOS 0-1", " and ".join(BIQ2021_FILES.values()),
                {"training": 10_000, "test": 2_000}, folder=True, file_per_split=True, group_by=("subset",),
                note=_BIQ2021_NOTE),
        Dataset("agiqa3k", "AGIQA-3K", read_agiqa3k, 2_982, "MOS 0-5", "data.csv"),
        Dataset("csiq", "CSIQ", read_csiq, 866, "DMOS 0-1, lower is better", "csiq.DMOS.xlsx", lower_is_better=True),
        Dataset("tid2013", "TID2013", read_tid2013, 3_000, "MOS 0-9", "mos_with_names.txt"),
    )
}  # fmt: skip
"""By the names that ``--dataset`` and the level scales of training use."""


@dataclass(frozen=True)
class Ratings:
    """The rows that an evaluation is about, and what was asked for.

    ``expected``: how many rows the dataset (or its split) has, None for a table of the user. ``fingerprint``: SHA-256
    of all names and ratings in the file.
    """

    name: str
    title: str
    scale: str
    rows: tuple[RatedImage, ...]
    split: str
    expected: int | None
    fingerprint: str
    group_by: tuple[str, ...] = ()
    torn: int = 0
    note: str = ""


def read_ratings(
    name: str,
    annotations: str | Path,
    *,
    split: str | None = None,
    columns: Columns | None = None,
    partial: bool = False,
    bad: list[str] | None = None,
    holdout: float | None = None,
) -> Ratings:
    """Read a dataset's annotation file and hold it against the dataset's known size.

    Args:
        name: one of ``DATASETS``, or ``"csv"`` with ``columns``.
        split: a split, ``"all"``, or None: the official test split where the file has one, else all. Of a file that is
            one split, both of the latter are that split.
        partial: accept another number of rows than the dataset has.
        bad: take malformed rows as messages into this list instead of raising the first.
        holdout: this share of the training split becomes the split "validation", see ``holdout.hold_out``; it is then
            what is read where no ``split`` is given.

    Raises:
        DatasetError: an unknown name or split, a file that is missing, malformed or of the wrong size, an image that
            is listed twice, a holdout of a dataset that has a validation split.
        ModuleNotFoundError: scipy or openpyxl is needed and missing.
    """
    path = Path(annotations)
    known = DATASETS.get(name) or _own_table(path, columns or Columns())
    if known.name != name:
        raise DatasetError(f"no dataset {name!r}: give one of {', '.join(DATASETS)}, or {CUSTOM} for a table of yours")
    if not path.exists():
        published = f" ({known.title}'s is {known.annotation})" if known.annotation else ""
        raise DatasetError(f"{path}: no such annotation file{published}")
    if path.is_dir() and not known.folder:
        raise DatasetError(f"{path} is a folder: give the annotation file in it")
    try:
        rows = known.read(path, bad)
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path} is not a text file in UTF-8: {error}") from None
    check_unique(path.name, rows)
    if not partial:
        _check_size(known, path, len(rows) + len(bad or ()), *known.size(rows))
    whole_splits = not bad and holdout is None  # a malformed row does not say which split it is of
    rows = rows if holdout is None else hold_out(rows, holdout)
    asked = "validation" if split is None and holdout is not None else split
    chosen, kept = _choose_split(path, rows, _asked_split(known, rows, asked))
    expected = len(kept) if known.n and holdout is not None else known.splits.get(chosen, known.n)
    if whole_splits and not partial:
        _check_size(known, path, len(kept), expected, chosen)
    if known.n is None and not kept and not bad:
        raise DatasetError(f"{path} holds no rows")
    return Ratings(
        name,
        known.title,
        known.scale,
        tuple(kept),
        chosen,
        expected,
        _fingerprint(rows),
        known.group_by,
        torn=len(torn_sources(rows) & {row.source for row in kept}) if chosen != "all" else 0,
        note=known.note,
    )


def _own_table(path: Path, columns: Columns) -> Dataset:
    scale = f"{columns.mos}, {'lower' if columns.lower_is_better else 'higher'} is better"
    return Dataset(CUSTOM, path.stem, lambda file, bad: read_columns(file, columns, bad), None, scale, annotation="")


def _asked_split(known: Dataset, rows: list[RatedImage], split: str | None) -> str:
    found = {row.split for row in rows if row.split is not None}
    if known.file_per_split and len(found) == 1 and split in (None, "all"):
        return found.pop()
    return split or ("test" if "test" in found and known.official_splits else "all")


def _choose_split(path: Path, rows: list[RatedImage], chosen: str) -> tuple[str, list[RatedImage]]:
    found = Counter(row.split for row in rows if row.split is not None)
    if chosen == "all":
        return chosen, rows
    if chosen not in found:
        cure = f"it has {', '.join(sorted(found))} and all" if found else "it has no splits: leave --split out"
        raise DatasetError(f"{path.name} has no split {chosen!r}: {cure}")
    return chosen, [row for row in rows if row.split == chosen]


def _check_size(known: Dataset, path: Path, found: int, expected: int | None, split: str = "all") -> None:
    if expected is not None and found != expected:
        part = "" if split == "all" else f", split {split}"
        raise DatasetError(
            f"{path.name} has {found:,} images{part}, but {known.title} has {expected:,}: the file is not complete or "
            "not the published one; to go on all the same, give --partial"
        )


def check_unique(title: str, rows: Sequence[RatedImage]) -> None:
    """Raise DatasetError where an image is listed twice."""
    twice = [image for image, count in Counter(row.image for row in rows).items() if count > 1]
    if twice:
        raise DatasetError(f"{title} lists {len(twice)} images more than once, the first is {twice[0]}")


def _fingerprint(rows: list[RatedImage]) -> str:
    return hashlib.sha256("\n".join(f"{row.image}\t{row.mos!r}" for row in rows).encode()).hexdigest()
