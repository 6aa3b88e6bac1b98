"""Make the list of BIQ2021's scenes from its photos: which ones show the same thing, so that no split parts them.

    python benchmarks/biq2021_scenes.py IMAGES > qsit_plugin/evaluation/data/biq2021_scenes.txt

IMAGES holds the 12,000 photos. Two rules, joined:

- ``ss01`` and ``ss02`` are numbered in the order in which they were taken. A scene ends where none of the three photos
  before is like one of the three after: correlation of the ranks of 16 x 16 brightness, which other exposures leave as
  they are, at the best of 25 shifts, below .6 in ss01. In ss02, mostly single photos, a scene goes on where it is above
  .8 instead: chance alone reaches .6 there in half of the places.
- Near twins anywhere: correlation of 32 x 32 brightness above .95 and at most 8 of 64 bits of a perceptual hash apart;
  and the pairs of ``biq2021_twins.csv``.

Rather too large than too small: a scene that is torn leaks, two that are joined cost nothing. Needs scipy. One minute.
"""

from __future__ import annotations

import csv
import re
import sys
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.fft import dctn
from scipy.stats import rankdata

TWINS = Path(__file__).parents[1] / "qsit_plugin" / "evaluation" / "data" / "biq2021_twins.csv"
SERIES = {"ss01": 0.6, "ss02": 0.8}
REACH = 3
SHIFTS = [(y, x) for y in range(-2, 3) for x in range(-2, 3)]


class Scenes:
    """Photos that are joined, by a leader each."""

    def __init__(self, names: list[str]):
        self.leader = {name: name for name in names}

    def find(self, name: str) -> str:
        while self.leader[name] != name:
            name = self.leader[name]
        return name

    def join(self, one: str, other: str) -> None:
        self.leader[self.find(other)] = self.find(one)


def key(name: str) -> tuple[str, int]:
    match = re.fullmatch(r"(ss\d\d) \((\d+)\)\.jpg", name)
    if match is None:
        sys.exit(f"{name} is not named like 'ss01 (1).jpg'")
    return match[1], int(match[2])


def brightness(path: Path) -> np.ndarray:
    """32 x 32 means of the grey photo."""
    with Image.open(path) as image:
        image.draft("RGB", (128, 128))
        grey = image.convert("RGB").convert("L").resize((32, 32), Image.Resampling.BOX)
    return np.asarray(grey, np.float32)


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a.ravel() - a.mean(), b.ravel() - b.mean()
    return float(a @ b / np.sqrt((a @ a) * (b @ b) + 1e-6))


def alike(a: np.ndarray, b: np.ndarray) -> float:
    """Of two 16 x 16 maps: the correlation at the best shift."""
    best = -1.0
    for y, x in SHIFTS:
        part = a[max(0, y) : 16 + min(0, y), max(0, x) : 16 + min(0, x)]
        other = b[max(0, -y) : 16 + min(0, -y), max(0, -x) : 16 + min(0, -x)]
        best = max(best, correlation(part, other))
    return best


def join_series(scenes: Scenes, names: list[str], maps: dict[str, np.ndarray], least: float) -> None:
    """Neighbours in number, unless the scene ends between them."""
    ranks = [rankdata(maps[n].reshape(16, 2, 16, 2).mean((1, 3))).reshape(16, 16).astype(np.float32) for n in names]
    found: dict[tuple[int, int], float] = {}
    for cut in range(1, len(names)):
        for i in range(max(0, cut - REACH), cut):
            for j in range(cut, min(len(names), cut + REACH)):
                if (i, j) not in found:
                    found[i, j] = alike(ranks[i], ranks[j])
                if found[i, j] >= least:
                    scenes.join(names[cut - 1], names[cut])


def join_twins(scenes: Scenes, names: list[str], maps: dict[str, np.ndarray]) -> None:
    flat = np.stack([maps[name].ravel() for name in names])
    flat -= flat.mean(1, keepdims=True)
    flat /= np.linalg.norm(flat, axis=1, keepdims=True) + 1e-6
    low = np.stack([dctn(maps[name], norm="ortho")[:8, :8].ravel() for name in names])
    bits = low > np.median(low[:, 1:], axis=1, keepdims=True)
    for start in range(0, len(names), 1000):
        for i, j in zip(*np.nonzero(flat[start : start + 1000] @ flat.T > 0.95), strict=True):
            if start + i < j and np.count_nonzero(bits[start + i] ^ bits[j]) <= 8:
                scenes.join(names[start + i], names[j])


def line(photos: list[str]) -> str:
    """``ss01 (103-115); ss01 (120)``"""
    runs: list[list[tuple[str, int]]] = []
    for subset, number in sorted(map(key, photos)):
        if runs and runs[-1][-1] == (subset, number - 1):
            runs[-1].append((subset, number))
        else:
            runs.append([(subset, number)])
    return "; ".join(
        f"{run[0][0]} ({run[0][1]}-{run[-1][1]})" if len(run) > 1 else f"{run[0][0]} ({run[0][1]})" for run in runs
    )


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    paths = {path.stem + ".jpg": path for path in Path(sys.argv[1]).iterdir() if path.suffix.lower() == ".jpg"}
    names = sorted(paths, key=key)
    maps = {name: brightness(paths[name]) for name in names}
    scenes = Scenes(names)
    for subset, least in SERIES.items():
        join_series(scenes, [name for name in names if name.startswith(subset)], maps, least)
    join_twins(scenes, names, maps)
    for pair in csv.DictReader(TWINS.read_text(encoding="utf-8").splitlines()):
        scenes.join(pair["training"], pair["test"])
    members: dict[str, list[str]] = {}
    for name in names:
        members.setdefault(scenes.find(name), []).append(name)
    print("\n".join(line(photos) for photos in members.values() if len(photos) > 1))


if __name__ == "__main__":
    main()
