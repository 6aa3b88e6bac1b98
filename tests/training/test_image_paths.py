"""From names in a table to paths in the rows: absolute, in another case, with decomposed accents, listed twice."""

import json
import os
import unicodedata
from pathlib import Path

import pytest
from PIL import Image

from qsit_plugin.evaluation.datasets.authentic import Columns
from qsit_plugin.evaluation.datasets.ratings import DatasetError
from qsit_plugin.training.data.conversations import convert_conversations
from qsit_plugin.training.data.conversion import Conversion, Images
from qsit_plugin.training.data.ratings import convert_ratings
from qsit_plugin.training.levels import LevelScale

COMPOSED = unicodedata.normalize("NFC", "fête/äöü.png")
DECOMPOSED = unicodedata.normalize("NFD", COMPOSED)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """``data/photos`` with 1.png and sub/2.png; ``data/other/3.png`` beside it; ``elsewhere/4.png`` outside of both."""
    for name in ("data/photos/1.png", "data/photos/sub/2.png", "data/other/3.png", "elsewhere/4.png"):
        put(tmp_path / name)
    return tmp_path / "data" / "photos"


def put(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8)).save(path, "PNG")


def convert(photos: Path, *names: object, images: Images | None = None, sd: tuple[str, ...] = ()) -> Conversion:
    table = photos.parent / "mine.csv"
    spreads = sd or ("1",) * len(names)
    lines = (
        f"{name},{3 + number / 10},{spread}" for number, (name, spread) in enumerate(zip(names, spreads, strict=True))
    )
    table.write_text("\n".join(["image,mos,sd", *lines]) + "\n", encoding="utf-8")
    scale, columns = LevelScale.custom(1, 5), Columns(sd="sd")
    return convert_ratings("csv", table, images or Images(photos, photos.parent), scale=scale, columns=columns)


@pytest.mark.parametrize("check", [True, False])
def test_absolute_paths_become_relative_to_the_root(photos: Path, check: bool) -> None:
    images = Images(photos, photos.parent, check)
    names = [photos / "1.png", photos / "sub" / ".." / "sub" / "2.png", photos.parent / "other" / "3.png"]
    result = convert(photos, *names, images=images)
    assert not result.problems
    assert [row.image for row in result.rows] == ["photos/1.png", "photos/sub/2.png", "other/3.png"]
    assert [row.id.split("->")[0] for row in result.rows] == ["photos/1.png", "photos/sub/2.png", "other/3.png"]


def test_absolute_paths_are_found_where_the_folder_is_given_relative(photos: Path, monkeypatch) -> None:
    monkeypatch.chdir(photos.parent)
    result = convert(photos, photos / "1.png", images=Images(Path("photos"), Path(".")))
    assert [row.image for row in result.rows] == ["photos/1.png"]


def test_absolute_paths_are_found_where_the_folder_is_a_link(photos: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    try:
        link.symlink_to(photos.parent, target_is_directory=True)
    except OSError:
        pytest.skip("links need a privilege here")
    result = convert(photos, photos / "1.png", images=Images(link / "photos", link))
    assert [row.image for row in result.rows] == ["photos/1.png"]


@pytest.mark.parametrize("check", [True, False])
def test_images_outside_the_root_are_one_clear_problem(photos: Path, tmp_path: Path, check: bool) -> None:
    outside = tmp_path / "elsewhere" / "4.png"
    result = convert(photos, photos / "1.png", outside, images=Images(photos, photos.parent, check))
    assert [row.image for row in result.rows] == ["photos/1.png"]
    assert result.problems.examples == {
        "image outside the root": [
            f"{outside.as_posix()} is not below {photos.parent}; give a folder that holds all images as --root"
        ]
    }


def test_another_systems_absolute_path_is_not_taken_for_a_folder(photos: Path) -> None:
    result = convert(photos, "D:\\photos\\1.png", images=Images(photos, photos.parent, check=False))
    assert dict(result.problems.counts) == {"image outside the root": 1}
    assert [row.image for row in convert(photos, "D:\\photos\\1.png").rows] == ["photos/1.png"]  # found by its name


def test_two_rows_of_one_file_are_refused_with_both_named(photos: Path) -> None:
    for names in (("1.png", "1.PNG"), ("1.png", photos / "1.png"), ("sub/2.png", "2.png"), ("sub/../1.png", "1.png")):
        with pytest.raises(DatasetError, match="keep the right one") as caught:
            convert(photos, *names)
        for name, mos in zip(names, ("3", "3.1"), strict=True):
            assert f"{name} (rated {mos})" in str(caught.value)


def test_two_rows_of_one_file_are_noticed_without_a_look_at_the_disk(photos: Path) -> None:
    with pytest.raises(DatasetError, match=r"are one file, photos/9\.png"):
        convert(photos, "9.png", photos / "9.png", images=Images(photos, photos.parent, check=False))


def test_names_that_differ_in_case_are_two_photos_where_the_disk_has_both(photos: Path) -> None:
    put(photos / "1.PNG")
    if len(os.listdir(photos)) < 3:
        pytest.skip("this disk ignores case")
    assert [row.image for row in convert(photos, "1.PNG", "1.png").rows] == ["photos/1.PNG", "photos/1.png"]


@pytest.mark.parametrize(("listed", "there"), [(COMPOSED, DECOMPOSED), (DECOMPOSED, COMPOSED)])
def test_accents_are_found_however_they_are_encoded(photos: Path, listed: str, there: str) -> None:
    put(photos / there)
    (row,) = convert(photos, listed).rows
    assert (photos.parent / row.image).is_file()
    talk = photos.parent / "talk.json"
    turns = [{"from": "human", "value": "<image>\nWhy?"}, {"from": "gpt", "value": "So."}]
    talk.write_text(json.dumps([{"id": "1", "image": listed, "conversations": turns}]), encoding="utf-8")
    (row,) = convert_conversations("llava", talk, Images(photos, photos)).rows
    assert (photos / row.image).is_file()


def test_a_conversations_image_is_not_taken_from_another_folder(photos: Path) -> None:
    talk = photos.parent / "talk.json"
    turns = [{"from": "human", "value": "<image>\nWhy?"}, {"from": "gpt", "value": "So."}]
    records = [{"id": "1", "image": name, "conversations": turns} for name in ("2.png", "SUB/2.png")]
    talk.write_text(json.dumps(records), encoding="utf-8")
    result = convert_conversations("llava", talk, Images(photos, photos))
    assert [row.image for row in result.rows] == ["sub/2.png"]
    assert dict(result.problems.counts) == {"missing image": 1}


@pytest.mark.parametrize("empty", ["", " ", "nan", "NaN", "NA", "null"])
def test_a_row_without_a_deviation_has_none_and_the_others_keep_theirs(photos: Path, empty: str) -> None:
    first, second = convert(photos, "1.png", "sub/2.png", sd=("1", empty)).rows
    scale = LevelScale.custom(1, 5)
    assert first.level_probs == pytest.approx(scale.soft(3.0, sd=1.0), abs=1e-6)
    assert second.level_probs == pytest.approx(scale.soft(3.1), abs=1e-6)


def test_a_deviation_that_is_no_number_is_still_a_bad_row(photos: Path) -> None:
    result = convert(photos, "1.png", "sub/2.png", sd=("1", "wide"))
    assert len(result.rows) == 1
    assert result.problems.counts == {"bad row": 1}
    assert "column 'sd': 'wide' is not a finite number" in result.problems.examples["bad row"][0]
