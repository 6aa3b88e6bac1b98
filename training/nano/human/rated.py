"""Human-rated photos for nano's teacher: what is trained on, what is chosen on, and what is looked at once.

A folder of a database holds ``ratings.csv`` (columns path, mos, split, subset, twin) and the images. BIQ2021's training
split is cut once more, by scene: photographers number what they take in a row, so blocks of neighbouring numbers stay
together, and near twins elsewhere are found by their thumbnails. A training photo that resembles one of the validation
or the test part is not trained on: of BIQ2021's 2,000 test photos 213 have such a twin, and its rating gives theirs
away (rank correlation .90).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from qsit_plugin.evaluation.datasets.tables import read_table

BLOCK = 25
"""Photos of neighbouring numbers that are held out together."""

HELD_OUT = 10
"""One block in so many is held out for choices."""

ALIKE = 0.94
"""Correlation of two thumbnails from which two photos are twins."""

IN_CID22 = ("ss03 (3684).jpg", "ss03 (7892).jpg")
"""Photos of BIQ2021 that CID22 holds too: never trained on with a rating, since CID22 measures other faults."""


@dataclass(frozen=True)
class Rated:
    """A photo and what people said of it."""

    path: Path
    mos: float  # on the database's own scale
    part: str  # "training", "validation", "test" or "twin" (of the two others: not used)
    subset: str = ""
    twin: bool = False  # a test photo with a near twin in the published training split

    @property
    def level(self) -> float:
        """On 1 to 5, of a rating on 0 to 1, as BIQ2021's are; NaN where nobody rated the photo."""
        return 1 + 4 * self.mos


def read(folder: str | Path) -> list[Rated]:
    """The rows of ``folder/ratings.csv`` as they are published. Raises ValueError for missing columns or images."""
    table = Path(folder) / "ratings.csv"
    if not table.is_file():
        raise FileNotFoundError(f"{table} is missing: give a folder with ratings.csv and its images")
    rows = [(row.number("mos"), row.texts()) for row in read_table(table, ("path", "mos", "split", "subset", "twin"))]
    photos = [
        Rated(table.parent / row["path"], mos, row.get("split", ""), row.get("subset", ""), row.get("twin") == "1")
        for mos, row in rows
    ]
    missing = [photo.path.name for photo in photos if not photo.path.is_file()]
    if missing:
        raise ValueError(f"{len(missing)} of {len(photos)} images of {table} are missing, the first {missing[0]}")
    return photos


def is_as_large(path: Path, side: int) -> bool:
    """Whether a crop of this side can be cut from the photo: seven photos of BIQ2021 are smaller than 384 pixels."""
    with Image.open(path) as image:
        return min(image.size) >= side


def has_size(path: Path, side: int) -> bool:
    """Whether the photo is a square of this side, as all but twelve of BIQ2021 are at 512."""
    with Image.open(path) as image:
        return image.size == (side, side)


def scene(photo: Rated) -> str:
    """Name of the block that a photo was numbered in."""
    number = re.search(r"(\d+)\D*$", photo.path.stem)
    return f"{photo.subset} {int(number[1]) // BLOCK}" if number else photo.path.stem


def is_held_out(photo: Rated) -> bool:
    """Whether the photo's scene is one of those for choices; it follows from the name alone."""
    return int(hashlib.sha256(scene(photo).encode()).hexdigest(), 16) % HELD_OUT == 0


def thumbnail(path: Path) -> np.ndarray:
    """(256,) grey levels at 16x16, of mean 0 and length 1: products of two are their correlation."""
    with Image.open(path) as image:
        image.draft("L", (64, 64))  # lets libjpeg decode an eighth of the sides
        small = np.asarray(image.convert("L").resize((16, 16), Image.Resampling.BOX), np.float32).ravel()
    small = small - small.mean()
    return small / max(float(np.linalg.norm(small)), 1e-6)


def cut(photos: Sequence[Rated], thumbnails: np.ndarray) -> list[Rated]:
    """The photos with their part: a tenth of the training split becomes "validation", and "twin" what resembles a
    photo of validation or test (thumbnails: (N, 256), in the order of the photos)."""
    parts = np.array(["validation" if p.part == "training" and is_held_out(p) else p.part for p in photos])
    training, others = np.flatnonzero(parts == "training"), np.flatnonzero(parts != "training")
    if len(training) and len(others):
        nearest = np.concatenate([(thumbnails[some] @ thumbnails[others].T).max(1) for some in _chunks(training)])
        parts[training[nearest > ALIKE]] = "twin"
    return [
        replace(p, part="twin" if p.path.name in IN_CID22 and part == "training" else str(part))
        for p, part in zip(photos, parts, strict=True)
    ]


def _chunks(numbers: np.ndarray, size: int = 1024) -> list[np.ndarray]:
    return [numbers[start : start + size] for start in range(0, len(numbers), size)]


def cached(path: Path, photos: Sequence[Rated], describe: Callable[[Path], np.ndarray]) -> np.ndarray:
    """(N, D) what ``describe`` makes of each photo: from the file ``path``, where it holds that of these photos, else
    made anew, which takes minutes, and written there."""
    names = np.array([photo.path.name for photo in photos])
    if path.exists():
        with np.load(path) as found:
            if "vectors" in found and np.array_equal(found["names"], names):
                return found["vectors"]
    vectors = np.stack([describe(photo.path) for photo in photos])
    np.savez(path, names=names, vectors=vectors)
    return vectors


def read_and_cut(folder: str | Path, cache: Path) -> list[Rated]:
    """``read`` and ``cut``; thumbnails are kept in the file ``cache``."""
    photos = read(folder)
    return cut(photos, cached(cache, photos, thumbnail))


def within_subsets(
    photos: Sequence[Rated], values: np.ndarray, wanted: Callable[[Rated], bool] = lambda photo: True
) -> dict[str, float]:
    """Rank correlation, to four places, of ``values`` with the ratings: "all", each subset, and "mean" of the subsets.
    The subset alone orders BIQ2021's test photos at .62, so only the order within them says what a model sees."""
    from scipy.stats import spearmanr

    chosen = [n for n, photo in enumerate(photos) if wanted(photo)]
    subsets = np.array([photos[n].subset for n in chosen])
    truth, value = np.array([photos[n].mos for n in chosen]), np.asarray(values)[chosen]
    within = {name: subsets == name for name in sorted(set(subsets.tolist()) - {""})}
    found = {name: float(spearmanr(truth[at], value[at]).statistic) for name, at in within.items()}
    mean = {"mean": float(np.mean(list(found.values())))} if found else {}
    every = {"all": float(spearmanr(truth, value).statistic)} | found | mean
    return {name: round(rho, 4) for name, rho in every.items()}
