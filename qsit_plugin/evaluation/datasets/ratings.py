"""Human ratings of a set of images: one row an image, whatever form the dataset was published in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from qsit_plugin.errors import QSiTError


class DatasetError(QSiTError, ValueError):
    """An annotation file or an image folder that is not what it should be; the message says what to do."""


FIELDS = ("split", "source", "distortion", "level")
"""What every row can be grouped by, besides the further columns of its dataset."""


@dataclass(frozen=True)
class RatedImage:
    """One row of a dataset.

    ``image``: path relative to the image folder, with forward slashes. ``mos``: the mean rating as published, on the
    dataset's own scale (for CSIQ a DMOS, 0 best). ``quality``: the same, turned so that higher is better. ``sd``:
    standard deviation of the ratings in units of ``mos``, or None. ``votes``: five shares summing to 1, excellent to
    bad, or None. ``split``: the official split ("training", "validation", "test"), or None. ``source``: what the image
    was made from, or the scene that it shows, the group of the bootstrap; the image itself where nothing else is known.
    ``distortion``, ``level``: name and strength (1 weakest) for synthetic distortions, or None. ``twins``: images of
    another split that show nearly the same. ``columns``: what else the dataset says of it, by column name.
    """

    image: str
    mos: float
    quality: float
    sd: float | None = None
    votes: tuple[float, ...] | None = None
    split: str | None = None
    source: str = ""
    distortion: str | None = None
    level: int | None = None
    twins: tuple[str, ...] = ()
    columns: Mapping[str, str] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "image", self.image.strip().replace("\\", "/"))
        if not self.source:
            object.__setattr__(self, "source", self.image)

    def label(self, column: str) -> str | None:
        """What stands in a column of the dataset, or in one of FIELDS; None where there is nothing."""
        value = self.columns[column] if column in self.columns else getattr(self, column) if column in FIELDS else None
        return None if value in (None, "") else str(value)
