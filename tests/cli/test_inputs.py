"""What the user named -> the files that are read."""

from pathlib import Path

import pytest

from qsit_plugin.cli.inputs import expand
from qsit_plugin.images import ImageError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Names alone matter here: nothing is opened."""
    for name in ("b.PNG", "a.jpg", "notes.txt", ".hidden.jpg", "inner/c.webp", "inner/deep/d.tif", ".cache/e.jpg"):
        file = tmp_path / "album" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    return tmp_path / "album"


def names(items: list, folder: Path) -> list[str]:
    return [item.relative_to(folder).as_posix() for item in items]


def test_a_folder_gives_its_images_sorted_with_those_of_inner_folders(folder: Path) -> None:
    assert names(expand([str(folder)]), folder) == ["a.jpg", "b.PNG", "inner/c.webp", "inner/deep/d.tif"]


def test_without_recursion_inner_folders_are_left_alone(folder: Path) -> None:
    assert names(expand([str(folder)], recursive=False), folder) == ["a.jpg", "b.PNG"]


def test_a_named_file_is_taken_whatever_its_suffix(folder: Path) -> None:
    assert names(expand([str(folder / "notes.txt")]), folder) == ["notes.txt"]


def test_a_pattern_is_matched_here_and_sorted(folder: Path) -> None:
    assert names(expand([str(folder / "[ab].*")]), folder) == ["a.jpg", "b.PNG"]


def test_two_stars_match_through_inner_folders(folder: Path) -> None:
    assert names(expand([str(folder / "**" / "*.tif")]), folder) == ["inner/deep/d.tif"]


def test_an_existing_name_with_brackets_is_not_a_pattern(folder: Path) -> None:
    bracketed = folder / "photo[1].jpg"
    bracketed.touch()
    assert expand([str(bracketed)]) == [bracketed]


def test_inputs_keep_the_order_in_which_they_were_given(folder: Path) -> None:
    given = [str(folder / "b.PNG"), str(folder / "a.jpg")]
    assert names(expand(given), folder) == ["b.PNG", "a.jpg"]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("missing.jpg", "no such file"),
        ("*.heif", "no file matches this pattern"),
        ("x" * 5000, "no such file"),
    ],
)
def test_what_is_not_there_is_an_image_error_that_names_it(folder: Path, name: str, reason: str) -> None:
    (error,) = expand([str(folder / name)])
    assert isinstance(error, ImageError)
    assert error.source == str(folder / name)
    assert reason in error.reason


def test_a_folder_without_images_is_an_image_error(tmp_path: Path) -> None:
    (error,) = expand([str(tmp_path)])
    assert isinstance(error, ImageError)
    assert "no image files" in error.reason


def test_a_folder_whose_images_lie_deeper_says_so_without_recursion(folder: Path) -> None:
    (folder / "inner" / "c.webp").unlink()
    (error,) = expand([str(folder / "inner")], recursive=False)
    assert isinstance(error, ImageError)
    assert "sub-folders were not searched" in error.reason
