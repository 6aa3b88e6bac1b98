"""Raw votes, one a row: averaged as they are, with what is wrong counted."""

import statistics
from pathlib import Path

import pytest

from qsit_plugin.evaluation.datasets.authentic import Columns
from qsit_plugin.evaluation.datasets.ratings import DatasetError
from qsit_plugin.training.data.conversion import Conversion, Images
from qsit_plugin.training.data.ratings import convert_ratings
from qsit_plugin.training.levels import LevelScale

UNCHECKED = Images(Path("photos"), Path("photos"), check=False)
SCALE = LevelScale.custom(1, 5)


def converted(folder: Path, *lines: str, header: str = "image,rater,rating", **options) -> Conversion:
    path = folder / "study.csv"
    path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return convert_ratings("votes", path, UNCHECKED, **({"scale": SCALE} | options))


def test_an_image_gets_the_mean_and_the_sample_deviation_of_its_votes(tmp_path: Path) -> None:
    votes = [("1.jpg", "a", 3), ("2.jpg", "a", 2), ("1.jpg", "b", 5), ("1.jpg", "c", 4)]
    result = converted(tmp_path, *(f"{image},{rater},{vote}" for image, rater, vote in votes))
    first, second = result.rows
    assert (first.id, first.mos, first.quality, first.source) == ("1.jpg->4.0", 4.0, 0.75, "study")
    spread = statistics.stdev([3, 5, 4])
    assert first.level_probs == pytest.approx(SCALE.soft(4.0, spread), abs=1e-6)
    assert second.level_probs == pytest.approx(SCALE.soft(2.0), abs=1e-6)  # one vote: no deviation
    assert result.notes == [
        "4 votes of 3 raters on 2 images, 1 to 3 an image, averaged as they are: no rater is corrected or left out; "
        "1 images have one vote, hence no deviation"
    ]


def test_votes_at_both_ends_are_possible(tmp_path: Path) -> None:
    (row,) = converted(tmp_path, "1.jpg,a,1", "1.jpg,b,5").rows
    assert row.mos == 3.0


def test_a_vote_off_the_scale_a_second_one_and_a_malformed_one_are_counted(tmp_path: Path) -> None:
    result = converted(tmp_path, "1.jpg,a,3", "1.jpg,b,6", "1.jpg,a,4", "1.jpg,c,good", "1.jpg,d,5")
    assert dict(result.problems.counts) == {"MOS out of range": 1, "bad row": 2}
    text = "\n".join(result.problems.lines())
    assert "study.csv, line 3: 6 is not on the scale custom (1 to 5)" in text
    assert "study.csv, line 4: a has rated 1.jpg in an earlier row" in text
    assert "'good' is not a finite number" in text
    assert [row.mos for row in result.rows] == [4.0]


def test_an_image_without_a_vote_that_can_be_used_is_no_row(tmp_path: Path) -> None:
    assert [row.image for row in converted(tmp_path, "1.jpg,a,9", "2.jpg,a,3").rows] == ["2.jpg"]


def test_raters_need_no_column_unless_one_is_named(tmp_path: Path) -> None:
    lines = ["1.jpg,3", "1.jpg,4"]
    result = converted(tmp_path, *lines, header="image,rating")
    assert [row.mos for row in result.rows] == [3.5]
    assert "2 votes on 1 images" in result.notes[0]
    with pytest.raises(DatasetError, match="no column 'who'"):
        converted(tmp_path, *lines, header="image,rating", rater="who")


def test_columns_have_the_names_that_are_given(tmp_path: Path) -> None:
    columns = Columns("photo", "score", split="part", group="scene")
    lines = ["1.jpg,a,3,training,s1", "1.jpg,b,4,training,s1", "2.jpg,a,5,test,s2", "2.jpg,b,5,test,s3"]
    result = converted(tmp_path, *lines, header="photo,who,score,part,scene", columns=columns, rater="who")
    (row,) = result.rows
    assert (row.image, row.split, row.group) == ("1.jpg", "training", "s1")
    assert "line 5: 2.jpg has another split or group in an earlier row" in "\n".join(result.problems.lines())


def test_a_share_of_the_groups_is_held_out(tmp_path: Path) -> None:
    lines = [f"{number}.jpg,{rater},{1 + number % 5}" for number in range(20) for rater in "ab"]
    kept = converted(tmp_path, *lines, holdout=0.2).rows
    held = converted(tmp_path, *lines, holdout=0.2, split="validation").rows
    assert (len(kept), len(held)) == (16, 4)
    assert not {row.image for row in kept} & {row.image for row in held}


def test_a_missing_file_or_column_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="none.csv: no such file"):
        convert_ratings("votes", tmp_path / "none.csv", UNCHECKED, scale=SCALE)
    with pytest.raises(DatasetError, match="has no column 'rating'"):
        converted(tmp_path, "1.jpg,3", header="image,mos")
    with pytest.raises(ValueError, match="needs the range of its ratings"):
        converted(tmp_path, "1.jpg,a,3", scale=None)
