"""The readers on the real annotation files (not part of the repository; a user has not got this folder)."""

from collections import Counter
from pathlib import Path

import pytest

from qsit_plugin.evaluation.datasets.published import DATASETS, read_ratings
from qsit_plugin.evaluation.datasets.ratings import DatasetError
from qsit_plugin.evaluation.datasets.synthetic import KADID_TYPES

OTHER_WORDS = {
    "color shift": "shifting", "color saturation 1": "oversaturation", "color saturation 2": "desaturation",
    "white noise in color component": "white with color", "denoise": "white noise with denoise",
    "mean shift": "shifting the mean", "color block": "color blocking", "high sharpen": "sharpness",
    "non-eccentricity patch": "noneccentricity patch",
}  # fmt: skip
"""Where the words of the label file differ from the published names by more than their ending."""


def test_koniqs_splits_have_their_official_sizes(data: Path) -> None:
    path = data / "annotations" / "koniq10k_votes.csv"
    rows = read_ratings("koniq", path, split="all").rows
    assert Counter(row.split for row in rows) == DATASETS["koniq"].splits
    assert len(read_ratings("koniq", path).rows) == 2015
    assert min(row.mos for row in rows) == pytest.approx(3.91, abs=0.01)
    assert max(row.mos for row in rows) == pytest.approx(88.39, abs=0.01)
    for row in rows:
        assert row.votes is not None
        assert sum(row.votes) == pytest.approx(1)


def test_koniqs_votes_and_mos_run_the_same_way(data: Path) -> None:
    from qsit_plugin.evaluation.statistics import plcc

    rows = read_ratings("koniq", data / "annotations" / "koniq10k_votes.csv").rows
    votes = [
        sum(weight * share for weight, share in zip((5, 4, 3, 2, 1), row.votes or (), strict=True)) for row in rows
    ]
    assert plcc(votes, [row.quality for row in rows]) > 0.99


def test_the_photos_with_a_known_rating_have_it(data: Path) -> None:
    folder = data / "annotations"
    koniq = {row.image: row for row in read_ratings("koniq", folder / "koniq10k_votes.csv", split="all").rows}
    assert koniq["44009500.jpg"].mos == pytest.approx(5.5, abs=0.05)
    kadid = {row.image: row for row in read_ratings("kadid10k", folder / "kadid10k_mos_sd.txt").rows}
    assert kadid["images/I02_01_03.png"].mos == pytest.approx(2.07, abs=0.005)
    agiqa = {row.image: row for row in read_ratings("agiqa3k", folder / "agiqa3k.csv").rows}
    assert agiqa["midjourney_lowstep_036.jpg"].mos == pytest.approx(1.916, abs=0.0005)
    assert len(agiqa) == 2_982


def test_kadids_ratings_fall_with_the_level(data: Path) -> None:
    """Its column is called dmos, but 5 is best."""
    rows = read_ratings("kadid10k", data / "annotations" / "kadid10k_mos_sd.txt").rows
    assert len(rows) == 10_125
    blurred = {level: [row.quality for row in rows if row.distortion == "Gaussian blur" and row.level == level]
               for level in (1, 5)}  # fmt: skip
    assert [len(values) for values in blurred.values()] == [81, 81]
    assert sum(blurred[1]) / 81 > sum(blurred[5]) / 81 + 2


def test_the_published_csv_form_of_kadid_agrees_with_the_list(data: Path, tmp_path: Path) -> None:
    listed = read_ratings("kadid10k", data / "annotations" / "kadid10k_mos_sd.txt").rows
    lines = [f"{Path(row.image).name},{row.source}.png,{row.mos},{(row.sd or 0) ** 2}\n" for row in reversed(listed)]
    path = tmp_path / "dmos.csv"
    path.write_text("dist_img,ref_img,dmos,var\n" + "".join(lines), encoding="utf-8")
    published = {row.image: row for row in read_ratings("kadid10k", path).rows}
    for row in listed:
        other = published[Path(row.image).name]
        assert (other.mos, other.source, other.distortion, other.level) == (
            row.mos, row.source, row.distortion, row.level,
        )  # fmt: skip
        assert other.sd == pytest.approx(row.sd)


def test_the_label_file_of_kadid_is_a_part_and_numbers_the_distortions_as_we_do(data: Path) -> None:
    path = data / "annotations" / "kadid10k_distortion_labels.txt"
    with pytest.raises(DatasetError, match=r"has 7,125 images, but KADID-10k has 10,125"):
        read_ratings("kadid10k", path)
    words = {
        Path(line.split("\t")[0]).name: line.split("\t")[2] for line in path.read_text(encoding="utf-8").splitlines()
    }
    rows = read_ratings("kadid10k", path, partial=True).rows
    pairs = {(row.distortion or "", words[Path(row.image).name]) for row in rows}
    assert len(pairs) == len(KADID_TYPES)
    for ours, theirs in pairs:
        assert theirs == OTHER_WORDS.get(ours, theirs)
        assert ours in OTHER_WORDS or ours.lower().startswith(theirs) or theirs in ours.lower()
