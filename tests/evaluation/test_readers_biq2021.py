"""BIQ2021 in its published form: two csv files with empty columns, a split each, photos in three subsets."""

from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from qsit_plugin.evaluation.accuracy import pair_images
from qsit_plugin.evaluation.datasets.biq2021 import FILES, scene_of
from qsit_plugin.evaluation.datasets.published import read_ratings
from qsit_plugin.evaluation.datasets.ratings import DatasetError

TRAINING = ("ss01 (153).jpg,0.2149", "ss02 (1014).jpg,0.5", "ss03 (7195).jpg,1", "ss03 (4).jpg,0.0")
TEST = ("ss01 (151).jpg,0.1931", "ss03 (2).jpg,0.75", "ss02 (9).jpg,0.6")


def write(folder: Path, training: tuple[str, ...] = TRAINING, test: tuple[str, ...] = TEST) -> Path:
    (folder / FILES["training"]).write_text("\n".join(["Image Name,MOS,,", *(f"{line},," for line in training), ""]))
    (folder / FILES["test"]).write_text("\n".join(["Image Name,MOS", *test, ""]))
    return folder


def refusal(*arguments, **options) -> str:
    with pytest.raises(DatasetError) as caught:
        read_ratings(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(tmp_path)


def test_both_files_of_a_folder_are_read_with_the_split_of_each(folder: Path) -> None:
    ratings = read_ratings("biq2021", folder, split="all", partial=True)
    assert Counter(row.split for row in ratings.rows) == {"training": 4, "test": 3}
    assert (ratings.expected, ratings.scale) == (12_000, "MOS 0-1")
    first = ratings.rows[0]
    assert (first.image, first.mos, first.quality, first.sd) == ("ss01 (153).jpg", 0.2149, 0.2149, None)


def test_the_official_test_split_is_the_default(folder: Path) -> None:
    ratings = read_ratings("biq2021", folder, partial=True)
    assert (ratings.split, ratings.expected) == ("test", 2000)
    assert [row.image for row in ratings.rows] == ["ss01 (151).jpg", "ss03 (2).jpg", "ss02 (9).jpg"]


@pytest.mark.parametrize(("split", "size"), [("training", 10_000), ("test", 2_000)])
@pytest.mark.parametrize("asked", [None, "all"])
def test_one_file_alone_is_its_split_and_no_part_of_a_whole(
    folder: Path, split: str, size: int, asked: str | None
) -> None:
    path = folder / FILES[split]
    ratings = read_ratings("biq2021", path, split=asked, partial=True)
    assert (ratings.split, ratings.expected, {row.split for row in ratings.rows}) == (split, size, {split})
    count = len(ratings.rows)
    assert f"has {count} images, split {split}, but BIQ2021 has {size:,}" in refusal("biq2021", path)


def test_a_file_alone_does_not_have_the_other_split(folder: Path) -> None:
    message = refusal("biq2021", folder / FILES["test"], split="training", partial=True)
    assert "no split 'training': it has test and all" in message


def test_a_whole_dataset_of_full_size_is_read_without_partial(tmp_path: Path) -> None:
    training = tuple(f"ss03 ({number}).jpg,0.5" for number in range(1, 10_001))
    write(tmp_path, training, tuple(f"ss03 ({number}).jpg,0.5" for number in range(10_001, 12_001)))
    assert len(read_ratings("biq2021", tmp_path).rows) == 2000
    assert len(read_ratings("biq2021", tmp_path, split="all").rows) == 12_000
    assert len(read_ratings("biq2021", tmp_path / FILES["training"]).rows) == 10_000


def test_the_subset_is_a_column_and_shown_unasked(folder: Path) -> None:
    ratings = read_ratings("biq2021", folder, partial=True)
    assert [row.label("subset") for row in ratings.rows] == ["ss01", "ss03", "ss02"]
    assert ratings.group_by == ("subset",)


def test_a_near_twin_is_known_from_both_sides(folder: Path) -> None:
    rows = {row.image: row for row in read_ratings("biq2021", folder, split="all", partial=True).rows}
    assert rows["ss01 (151).jpg"].twins == ("ss01 (153).jpg",)
    assert rows["ss01 (153).jpg"].twins == ("ss01 (151).jpg",)
    assert rows["ss03 (2).jpg"].twins == ()


def test_photos_of_one_scene_are_one_source_and_a_photo_alone_is_its_own(folder: Path) -> None:
    rows = {row.image: row for row in read_ratings("biq2021", folder, split="all", partial=True).rows}
    assert rows["ss01 (151).jpg"].source == rows["ss01 (153).jpg"].source == "ss01 (149).jpg"
    assert rows["ss03 (2).jpg"].source == "ss03 (2).jpg"
    assert scene_of("SS01 (110).JPG") == scene_of("ss01 (104).jpg") != scene_of("ss01 (103).jpg")


def test_near_twins_are_always_of_one_scene() -> None:
    from qsit_plugin.evaluation.datasets.biq2021 import _twins

    pairs = [(one, other) for one, others in _twins().items() for other in others]
    assert len(pairs) == 2 * 296
    assert all(scene_of(one) == scene_of(other) for one, other in pairs)


def test_the_number_of_scenes_in_both_splits_is_counted(folder: Path) -> None:
    assert read_ratings("biq2021", folder, partial=True).torn == 1
    assert read_ratings("biq2021", folder, split="all", partial=True).torn == 0


def test_exif_orientation_and_the_leak_stand_in_the_note(folder: Path) -> None:
    note = read_ratings("biq2021", folder, partial=True).note
    assert "EXIF orientation is not applied" in note
    assert "213 photos" in note


def test_a_photo_named_in_capitals_on_the_disk_is_found(folder: Path) -> None:
    images = folder / "Images"
    images.mkdir()
    for row in read_ratings("biq2021", folder, split="all", partial=True).rows:
        name = row.image.replace(".jpg", ".JPG") if row.image == "ss02 (1014).jpg" else row.image
        Image.new("RGB", (8, 8)).save(images / name)
    pairs, missing = pair_images(read_ratings("biq2021", folder, split="all", partial=True), images)
    assert (len(pairs), missing) == (7, [])
    assert {row.image: file.name for row, file in pairs}["ss02 (1014).jpg"] == "ss02 (1014).JPG"


def test_a_folder_that_lacks_a_file_and_a_file_of_another_name_are_refused(folder: Path) -> None:
    (folder / FILES["training"]).rename(folder / "mos.csv")
    message = refusal("biq2021", folder)
    assert "lacks Train (Images and MOS).csv" in message
    assert "give its file instead of the folder" in message
    assert "does not say which split of BIQ2021 it is" in refusal("biq2021", folder / "mos.csv")


def test_another_columns_names_are_refused_with_those_that_are_there(folder: Path) -> None:
    (folder / FILES["test"]).write_text("path,mos,split\nimages/ss01 (1).jpg,0.5,test\n")
    assert "no column 'Image Name', 'MOS'; its header holds 'path', 'mos', 'split'" in refusal("biq2021", folder)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("ss04 (1).jpg,0.5", "'ss04 (1).jpg' is not named like 'ss01 (1).jpg'"),
        ("images/ss01 (1).jpg,0.5", "is not named like"),
        ("ss01 (1).jpg,3.5", "a MOS of BIQ2021 is from 0 to 1, got 3.5"),
        ("ss01 (1).jpg,", "the column 'MOS' is empty"),
    ],
)
def test_a_row_that_does_not_fit_is_refused_with_its_line(tmp_path: Path, line: str, message: str) -> None:
    write(tmp_path, test=("ss01 (2).jpg,0.1", line))
    found = refusal("biq2021", tmp_path, partial=True)
    assert found.startswith("Test (Images and MOS).csv, line 3")
    assert message in found


def test_how_many_rows_do_not_fit_is_said(tmp_path: Path) -> None:
    write(tmp_path, test=("a.jpg,0.1", "ss01 (2).jpg,0.1", "b.jpg,0.1"))
    assert refusal("biq2021", tmp_path, partial=True).endswith("(the first of 2 malformed rows of 3)")


def test_a_photo_in_both_splits_is_refused(tmp_path: Path) -> None:
    write(tmp_path, test=(TRAINING[0], TRAINING[1], "ss03 (2).jpg,0.75"))
    assert "lists 2 images more than once, the first is ss01 (153).jpg" in refusal("biq2021", tmp_path, partial=True)


def test_a_scene_is_read_as_it_was_written() -> None:
    from benchmarks.biq2021_scenes import line
    from qsit_plugin.evaluation.datasets.biq2021 import _photos

    photos = ["ss01 (9).jpg", "ss01 (10).jpg", "ss01 (12).jpg", "ss03 (5648).jpg"]
    text = line(photos[::-1])
    assert text == "ss01 (9-10); ss01 (12); ss03 (5648)"
    assert [photo for part in text.split("; ") for photo in _photos(part)] == photos
