"""BIQ2021 and LIVE-C as their authors publish them. Set QSIT_BIQ2021 and QSIT_LIVEC to the folders that hold them:
``Train (Images and MOS).csv``, ``Test (Images and MOS).csv`` and ``Images``; ``Data`` and ``Images``."""

import os
from collections import Counter
from pathlib import Path

import pytest

from qsit_plugin.evaluation.accuracy import pair_images
from qsit_plugin.evaluation.datasets.published import read_ratings
from qsit_plugin.training.data.conversion import Images
from qsit_plugin.training.data.ratings import convert_ratings
from qsit_plugin.training.levels import LevelScale


def published(variable: str) -> Path:
    folder = os.environ.get(variable)
    if not folder:
        pytest.skip(f"set {variable} to the folder of the published files")
    return Path(folder)


@pytest.fixture(scope="module")
def biq2021() -> Path:
    return published("QSIT_BIQ2021")


@pytest.fixture(scope="module")
def livec() -> Path:
    return published("QSIT_LIVEC")


def test_biq2021_has_its_splits_subsets_and_twins(biq2021: Path) -> None:
    rows = read_ratings("biq2021", biq2021, split="all").rows
    assert Counter(row.split for row in rows) == {"training": 10_000, "test": 2_000}
    assert Counter(row.label("subset") for row in rows) == {"ss01": 2000, "ss02": 2000, "ss03": 8000}
    twins = Counter((row.split, row.columns["subset"]) for row in rows if row.twins)
    assert [twins["test", subset] for subset in ("ss01", "ss02", "ss03")] == [127, 1, 85]
    assert sum(count for (split, _), count in twins.items() if split == "training") == 269


def test_nearly_every_test_photo_of_ss01_is_of_a_scene_that_is_trained_on(biq2021: Path) -> None:
    rows = read_ratings("biq2021", biq2021, split="all").rows
    trained = {row.source for row in rows if row.split == "training"}
    tested = [row for row in rows if row.split == "test"]
    found = Counter(row.columns["subset"] for row in tested if row.source in trained)
    assert found == {"ss01": 332, "ss02": 42, "ss03": 85}


def test_every_photo_of_biq2021_is_found(biq2021: Path) -> None:
    pairs, missing = pair_images(read_ratings("biq2021", biq2021, split="all"), biq2021 / "Images")
    assert (len(pairs), missing) == (12_000, [])


def test_the_subset_alone_orders_biq2021s_test_photos_at_62(biq2021: Path) -> None:
    from qsit_plugin.evaluation.figures import by_column

    rows = read_ratings("biq2021", biq2021).rows
    assert by_column([row.mos for row in rows], rows, "subset", 0, 0)["value_alone"] == pytest.approx(0.623, abs=5e-4)


def test_biq2021s_training_split_is_converted_by_scene_and_without_twins(biq2021: Path) -> None:
    images = Images(biq2021 / "Images", biq2021)
    whole = convert_ratings("biq2021", biq2021, images)
    assert (len(whole.rows), whole.dropped, bool(whole.problems)) == (10_000, 0, False)
    parts = [
        convert_ratings("biq2021", biq2021, images, split=split, holdout=0.1, without_twins=True)
        for split in ("training", "validation")
    ]
    assert sum(part.twins for part in parts) == 269
    assert sum(len(part.rows) for part in parts) == 9731
    assert 900 < len(parts[1].rows) < 1001
    assert whole.levels == Counter(LevelScale.named("biq2021").level(row.mos or 0.0) for row in whole.rows)


def test_livec_has_its_halves_and_leaves_the_raters_training_images_out(livec: Path) -> None:
    rows = read_ratings("livec", livec / "Data", split="all").rows
    assert Counter(row.split for row in rows) == {"validation": 588, "test": 574}
    assert not any(row.image.startswith("t") for row in rows)
    assert len({row.source for row in rows}) == 1161
    twice = {row.image: row for row in rows if row.source == "246.bmp"}
    assert {name: round(row.mos, 1) for name, row in twice.items()} == {"246.bmp": 52.0, "333.bmp": 51.1}
    for split, count in (("validation", 588), ("test", 574)):
        assert len(read_ratings("livec", livec / "Data", split=split).rows) == count


def test_every_photo_of_livec_is_found(livec: Path) -> None:
    pairs, missing = pair_images(read_ratings("livec", livec / "Data"), livec / "Images")
    assert (len(pairs), missing) == (1162, [])
