"""A held-out validation split: whole scenes, the same every time, from every subset."""

from pathlib import Path

import pytest

from qsit_plugin.evaluation.datasets.authentic import Columns
from qsit_plugin.evaluation.datasets.holdout import check_whole, hold_out, torn_sources
from qsit_plugin.evaluation.datasets.published import read_ratings
from qsit_plugin.evaluation.datasets.ratings import DatasetError, RatedImage


def rated(image: str, split: str | None = "training", source: str = "", subset: str = "") -> RatedImage:
    return RatedImage(image, 0.5, 0.5, split=split, source=source, columns={"subset": subset} if subset else {})


@pytest.fixture
def rows() -> list[RatedImage]:
    """A hundred photos in scenes of five, two hundred alone in another subset, and a test photo of every scene."""
    scenes = [rated(f"a{n}", source=f"scene {n // 5}", subset="a") for n in range(100)]
    alone = [rated(f"b{n}", subset="b") for n in range(200)]
    return [*scenes, *alone, *(rated(f"t{n}", "test", f"scene {n}", "a") for n in range(20))]


def test_a_share_of_every_subset_is_held_out_of_the_training_split(rows: list[RatedImage]) -> None:
    cut = hold_out(rows, 0.1)
    assert [row.image for row in cut] == [row.image for row in rows]
    held = [row for row in cut if row.split == "validation"]
    assert [sum(row.columns["subset"] == name for row in held) for name in "ab"] == [10, 20]
    assert [row.split for row in cut if row.image.startswith("t")] == ["test"] * 20


def test_no_scene_is_on_both_sides(rows: list[RatedImage]) -> None:
    cut = [row for row in hold_out(rows, 0.3) if row.split != "test"]
    assert torn_sources(cut) == set()
    assert {row.split for row in cut} == {"training", "validation"}


def test_the_same_rows_are_held_out_in_any_order_of_the_file(rows: list[RatedImage]) -> None:
    held = {row.image for row in hold_out(rows, 0.1) if row.split == "validation"}
    assert {row.image for row in hold_out(rows[::-1], 0.1) if row.split == "validation"} == held


def test_a_scene_that_is_larger_than_the_share_stays_in_training() -> None:
    rows = [*(rated(f"a{n}", source="large") for n in range(50)), *(rated(f"b{n}") for n in range(50))]
    held = [row for row in hold_out(rows, 0.1) if row.split == "validation"]
    assert (len(held), {row.source == "large" for row in held}) == (10, {False})


def test_rows_without_any_split_are_all_training() -> None:
    cut = hold_out([rated(f"a{n}", split=None) for n in range(20)], 0.25)
    assert sorted(row.split or "" for row in cut) == ["training"] * 15 + ["validation"] * 5


@pytest.mark.parametrize(
    ("rows", "share", "message"),
    [
        ([rated("a"), rated("b", "validation")], 0.5, "there is a validation split already"),
        ([rated("a", "train")], 0.5, "no split 'training' to hold rows out of, only train"),
        ([rated("a"), rated("b")], 1.0, "between 0 and 1, got 1"),
        ([rated("a", source="x"), rated("b", source="x")], 0.5, "no source of the 2 rows is as small as 0.5 of them"),
    ],
)
def test_what_cannot_be_cut_is_refused(rows: list[RatedImage], share: float, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        hold_out(rows, share)


def test_the_validation_split_that_was_cut_is_what_is_read(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("image,mos,photo\n" + "".join(f"{n}.jpg,{n % 5},{n // 4}\n" for n in range(40)))
    columns = Columns(group="photo")
    held = read_ratings("csv", path, columns=columns, holdout=0.2)
    rest = read_ratings("csv", path, columns=columns, holdout=0.2, split="training")
    assert (held.split, len(held.rows), len(rest.rows)) == ("validation", 8, 32)
    assert {row.source for row in held.rows} & {row.source for row in rest.rows} == set()
    assert held.fingerprint == read_ratings("csv", path, columns=columns).fingerprint  # scores made before still hold


def test_a_split_with_sources_on_both_sides_is_refused_with_their_number() -> None:
    rows = [rated("a", source="x"), rated("b", "test", "x"), rated("c", source="y"), rated("d", "test", "z")]
    with pytest.raises(DatasetError, match=r"1 of 3 groups are in more than one split, .* x \(test, training\)"):
        check_whole(rows)
    check_whole(rows[1:])
