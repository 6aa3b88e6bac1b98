"""Finding the images of a dataset in folders as they are met."""

import os
import unicodedata
from pathlib import Path

import pytest

from qsit_plugin.evaluation.datasets.locate import locate
from qsit_plugin.evaluation.datasets.ratings import DatasetError, RatedImage


def rows(*names: str) -> list[RatedImage]:
    return [RatedImage(name, 1.0, 1.0) for name in names]


def put(root: Path, *names: str) -> list[Path]:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return [root / name for name in names]


@pytest.mark.parametrize(
    ("listed", "there"),
    [
        ("a.png", "a.png"),
        ("images/a.png", "images/a.png"),
        ("images\\a.png", "images/a.png"),
        ("images/a.png", "a.png"),  # --images is the inner folder
        ("a.png", "distorted_images/a.png"),  # --images is the outer one
        ("I01_01_1.bmp", "i01_01_1.BMP"),
        (" two words.JPG ", "two words.jpg"),
    ],
)
def test_an_image_is_found_where_lists_and_copies_differ(tmp_path: Path, listed: str, there: str) -> None:
    (path,) = put(tmp_path, there)
    assert locate(tmp_path, rows(listed)) == [path]


def test_images_keep_the_order_of_the_rows_and_a_missing_one_is_none(tmp_path: Path) -> None:
    a, b = put(tmp_path, "a.png", "b.png")
    assert locate(tmp_path, rows("b.png", "gone.png", "a.png")) == [b, None, a]


def test_of_two_files_of_one_name_the_one_below_the_listed_folder_is_taken(tmp_path: Path) -> None:
    _, right = put(tmp_path, "db/blur/a.png", "db/noise/A.png")
    assert locate(tmp_path, rows("noise/a.png")) == [right]


def test_two_files_of_one_name_are_refused_where_nothing_tells_them_apart(tmp_path: Path) -> None:
    put(tmp_path, "1024x768/a.jpg", "512x384/a.jpg")
    with pytest.raises(DatasetError, match=r"several files for a\.jpg: 1024x768.a\.jpg and 512x384.a\.jpg; give the"):
        locate(tmp_path, rows("a.jpg"))


def test_an_absolute_path_is_taken_and_one_of_another_machine_is_found_by_its_name(tmp_path: Path) -> None:
    a, b = put(tmp_path, "in/a.png", "out/b.png")
    assert locate(tmp_path / "in", rows(str(a), str(b))) == [a, b]
    assert locate(tmp_path / "in", rows("/home/someone/photos/a.png")) == [a]
    assert locate(tmp_path / "in", rows("D:\\photos\\a.png")) == [a]


def test_of_names_that_differ_in_case_the_equal_one_comes_first(tmp_path: Path) -> None:
    lower, upper = put(tmp_path, "db/000.jpg", "db/000.JPG")
    if lower.samefile(upper):
        pytest.skip("this disk ignores case")
    assert locate(tmp_path, rows("000.JPG", "000.jpg")) == [upper, lower]
    with pytest.raises(DatasetError, match=r"several files for 000\.Jpg: db.000\.JPG and db.000\.jpg"):
        locate(tmp_path, rows("000.Jpg"))


@pytest.mark.parametrize(("listed", "there"), [("NFC", "NFD"), ("NFD", "NFC")])
@pytest.mark.parametrize("name", ["Zoë.png", "Zoë/é.png"])
def test_accents_are_found_however_they_are_encoded(tmp_path: Path, name: str, listed: str, there: str) -> None:
    (path,) = put(tmp_path, unicodedata.normalize(there, name))
    (found,) = locate(tmp_path, rows(unicodedata.normalize(listed, name)))
    assert found is not None
    assert found.samefile(path)


@pytest.mark.parametrize(
    ("first", "second"), [("000.jpg", "000.JPG"), ("db/000.jpg", "000.jpg"), ("000.JPG", "./db/000.jpg")]
)
def test_two_rows_of_one_file_are_refused_with_both_names_and_ratings(tmp_path: Path, first: str, second: str) -> None:
    put(tmp_path, "db/000.jpg")
    two = [RatedImage(first, 2.0, 2.0), RatedImage(second, 4.5, 4.5)]
    with pytest.raises(DatasetError) as caught:
        locate(tmp_path, two)
    assert f"the rows {first} (rated 2) and {second} (rated 4.5) are one file" in str(caught.value)


def test_two_names_of_one_linked_file_are_two_images(tmp_path: Path) -> None:
    """A store that keeps equal files once; only names that are alike can be one image by mistake."""
    (a,) = put(tmp_path, "a.png")
    try:
        os.link(a, tmp_path / "b.png")
    except OSError:
        pytest.skip("this disk has no links")
    assert locate(tmp_path, rows("a.png", "b.png")) == [a, tmp_path / "b.png"]


def test_a_file_of_another_row_is_not_taken_for_a_missing_image_of_the_same_name(tmp_path: Path) -> None:
    a, b = put(tmp_path, "blur/1.png", "noise/1.png")
    assert locate(tmp_path, rows("blur/1.png", "jpeg/1.png", "noise/1.png")) == [a, None, b]


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no such image folder"):
        locate(tmp_path / "gone", rows("a.jpg"))
