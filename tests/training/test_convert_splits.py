"""Which photos become training rows: splits that are official and those that are not, scenes held out, near twins."""

import math
from pathlib import Path

import pytest

from qsit_plugin.evaluation.datasets.authentic import Columns
from qsit_plugin.evaluation.datasets.biq2021 import FILES, scene_of
from qsit_plugin.evaluation.datasets.ratings import DatasetError
from qsit_plugin.training.data.conversion import Images
from qsit_plugin.training.data.ratings import convert_ratings
from qsit_plugin.training.levels import LevelScale

UNCHECKED = Images(Path("photos"), Path("photos"), check=False)


@pytest.fixture
def biq2021(tmp_path: Path) -> Path:
    """Training: 200 photos of ss01, 18 of them near twins of real test photos, as 153 of 151; 100 of ss03."""
    training = [f"ss01 ({number}).jpg,0.{number:03}" for number in range(1, 202) if number != 151]
    training += [f"ss03 ({number}).jpg,1" for number in range(1, 101)]
    (tmp_path / FILES["training"]).write_text("\n".join(["Image Name,MOS,,", *(f"{line},," for line in training), ""]))
    (tmp_path / FILES["test"]).write_text("Image Name,MOS\nss01 (151).jpg,0.19\nss03 (200).jpg,0.7\n")
    return tmp_path


def names(*arguments, **options) -> list[str]:
    return [row.image for row in convert_ratings("biq2021", *arguments, UNCHECKED, partial=True, **options).rows]


def test_biq2021s_training_split_is_converted(biq2021: Path) -> None:
    found = names(biq2021)
    assert len(found) == 300
    assert not {"ss01 (151).jpg", "ss03 (200).jpg"} & set(found)
    assert names(biq2021 / FILES["training"]) == found
    assert names(biq2021, split="test") == ["ss01 (151).jpg", "ss03 (200).jpg"]


def test_biq2021s_scale_goes_from_0_to_1_and_holds_both_ends() -> None:
    scale = LevelScale.named("biq2021")
    assert [scale.level(mos) for mos in (0, 0.199, 0.2, 0.5, 0.799, 0.8, 1)] == [
        "bad", "bad", "poor", "fair", "good", "excellent", "excellent",
    ]  # fmt: skip
    assert scale.level(math.nextafter(1, 2)) is None
    assert not scale.is_possible(-0.01)


def test_its_ratings_become_levels_and_rows_with_their_split(biq2021: Path) -> None:
    result = convert_ratings("biq2021", biq2021, UNCHECKED, partial=True)
    assert result.levels == {"bad": 198, "poor": 2, "excellent": 100}
    assert {(row.source, row.split) for row in result.rows} == {("biq2021", "training")}


def test_training_photos_with_a_near_twin_in_the_test_split_can_be_left_out(biq2021: Path) -> None:
    result = convert_ratings("biq2021", biq2021, UNCHECKED, partial=True, without_twins=True)
    assert (len(result.rows), result.twins) == (282, 18)
    assert "ss01 (153).jpg" not in [row.image for row in result.rows]


def test_near_twins_are_unknown_for_other_datasets(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_text("name,mos_quality,std_quality\n1.jpg,3,0.1\n")
    with pytest.raises(DatasetError, match="no near twins are known for AGIQA-3K"):
        convert_ratings("agiqa3k", path, UNCHECKED, partial=True, without_twins=True)


def test_held_out_scenes_are_in_the_validation_split_and_nowhere_else(biq2021: Path) -> None:
    rest, held = (names(biq2021, split=split, holdout=0.2) for split in (None, "validation"))
    assert sorted(rest + held) == sorted(names(biq2021))
    assert {scene_of(name) for name in rest} & {scene_of(name) for name in held} == set()
    assert 20 < sum(name.startswith("ss01") for name in held) <= 40
    assert sum(name.startswith("ss03") for name in held) == 20


def test_halves_that_are_not_official_are_converted_whole(tmp_path: Path) -> None:
    import numpy as np
    from scipy.io import savemat

    cells = np.empty((9, 1), dtype=object)
    cells[:, 0] = ["t1.bmp", *(f"{number}.bmp" for number in range(100, 108))]
    savemat(tmp_path / "AllImages_release.mat", {"AllImages_release": cells})
    savemat(tmp_path / "AllMOS_release.mat", {"AllMOS_release": np.linspace(0, 100, 9)[None]})
    savemat(tmp_path / "AllStdDev_release.mat", {"AllStdDev_release": np.full((1, 9), 18.5)})
    whole = convert_ratings("livec", tmp_path, UNCHECKED, partial=True).rows
    assert len(whole) == 8
    half = convert_ratings("livec", tmp_path, UNCHECKED, partial=True, split="validation").rows
    assert [row.image for row in half] == [row.image for row in whole if row.split == "validation"]
    assert 0 < len(half) < 8


def test_a_split_that_has_images_of_one_group_on_both_sides_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    lines = [f"{number}.jpg,3,{number // 3},{('training', 'test')[number % 2]}" for number in range(12)]
    path.write_text("\n".join(["image,mos,photo,split", *lines, ""]))
    options = {"scale": LevelScale.custom(1, 5), "columns": Columns(split="split", group="photo")}
    with pytest.raises(DatasetError, match=r"4 of 4 groups are in more than one split, .* 0 \(test, training\)"):
        convert_ratings("csv", path, UNCHECKED, **options)
    cut = {"scale": LevelScale.custom(1, 5), "columns": Columns(group="photo"), "holdout": 0.25}
    assert len(convert_ratings("csv", path, UNCHECKED, **cut).rows) == 9
