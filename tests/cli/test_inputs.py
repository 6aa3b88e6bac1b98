"""What the user named -> the files that are read."""

from pathlib import Path

import pytest

from qsit_plugin.cli.inputs import read
from qsit_plugin.images.reading import ImageError


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
    assert names(read([str(folder)]), folder) == ["a.jpg", "b.PNG", "inner/c.webp", "inner/deep/d.tif"]


def test_without_recursion_inner_folders_are_left_alone(folder: Path) -> None:
    assert names(read([str(folder)], recursive=False), folder) == ["a.jpg", "b.PNG"]


def test_a_named_file_is_taken_whatever_its_suffix(folder: Path) -> None:
    assert names(read([str(folder / "notes.txt")]), folder) == ["notes.txt"]


def test_a_pattern_is_matched_here_and_sorted(folder: Path) -> None:
    assert names(read([str(folder / "[ab].*")]), folder) == ["a.jpg", "b.PNG"]


def test_two_stars_match_through_inner_folders(folder: Path) -> None:
    assert names(read([str(folder / "**" / "*.tif")]), folder) == ["inner/deep/d.tif"]


def test_an_existing_name_with_brackets_is_not_a_pattern(folder: Path) -> None:
    bracketed = folder / "photo[1].jpg"
    bracketed.touch()
    assert read([str(bracketed)]) == [bracketed]


def test_inputs_keep_the_order_in_which_they_were_given(folder: Path) -> None:
    given = [str(folder / "b.PNG"), str(folder / "a.jpg")]
    assert names(read(given), folder) == ["b.PNG", "a.jpg"]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("missing.jpg", "no such file"),
        ("*.heif", "no file matches this pattern"),
        ("x" * 5000, "no such file"),
    ],
)
def test_what_is_not_there_is_an_image_error_that_names_it(folder: Path, name: str, reason: str) -> None:
    (error,) = read([str(folder / name)])
    assert isinstance(error, ImageError)
    assert error.source == str(folder / name)
    assert reason in error.reason


def test_a_folder_without_images_is_an_image_error(tmp_path: Path) -> None:
    (error,) = read([str(tmp_path)])
    assert isinstance(error, ImageError)
    assert "no image files" in error.reason


def test_a_folder_whose_images_lie_deeper_says_so_without_recursion(folder: Path) -> None:
    (folder / "inner" / "c.webp").unlink()
    (error,) = read([str(folder / "inner")], recursive=False)
    assert isinstance(error, ImageError)
    assert "sub-folders were not searched" in error.reason


def test_pictures_of_other_kinds_are_counted_on_stderr_and_texts_and_hidden_files_are_not(folder: Path, capsys) -> None:
    for name in ("a.cr2", "b.CR2", "inner/c.mov", ".hidden.cr2"):
        (folder / name).touch()
    read([str(folder)])
    assert capsys.readouterr().err == "3 files left out (.cr2, .mov)\n"
    read([str(folder / "inner" / "deep")])
    assert capsys.readouterr().err == ""


@pytest.fixture
def linked(folder: Path) -> Path:
    """The folder with a link to itself, a link that leads nowhere, two links that lead to each other."""
    try:
        (folder / "inner" / "up").symlink_to(folder, target_is_directory=True)
    except OSError:
        pytest.skip("this user may not make links")
    (folder / "broken.jpg").symlink_to("nowhere")
    (folder / "loop.jpg").symlink_to("other")
    (folder / "other").symlink_to("loop.jpg")
    return folder


def test_a_link_to_a_folder_is_not_entered_and_one_that_is_named_is(linked: Path) -> None:
    expected = ["a.jpg", "b.PNG", "broken.jpg", "inner/c.webp", "inner/deep/d.tif", "loop.jpg"]
    assert names(read([str(linked)]), linked) == expected
    assert names(read([str(linked / "inner" / "up")]), linked / "inner" / "up") == expected


def test_two_stars_do_not_go_round_in_a_folder_that_links_to_itself(linked: Path) -> None:
    (linked / "inner" / "deep" / "up").symlink_to(linked, target_is_directory=True)  # two of them: 2 to the power of 40
    assert names(read([str(linked / "**" / "*.tif")]), linked) == ["inner/deep/d.tif"]
    assert names(read([str(linked / "**" / "deep" / "**" / "*.tif")]), linked) == ["inner/deep/d.tif"]


def test_two_stars_at_the_beginning_and_the_end_of_a_pattern(folder: Path, monkeypatch) -> None:
    monkeypatch.chdir(folder)
    assert [str(item) for item in read(["**/*.tif"])] == [str(Path("inner/deep/d.tif"))]
    assert [str(item) for item in read(["**/*.jpg"])] == ["a.jpg"]
    assert names(read([str(folder / "inner" / "**")]), folder) == ["inner/c.webp", "inner/deep/d.tif"]
