"""Finding the images of a dataset in folders as they are met."""

from pathlib import Path

import pytest

from qsit_plugin.evaluation.locate import locate
from qsit_plugin.evaluation.ratings import DatasetError, RatedImage


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


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no such image folder"):
        locate(tmp_path / "gone", rows("a.jpg"))
