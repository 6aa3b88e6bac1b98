"""A range that is not that of the ratings: noticed, said with the histogram and the cure, and no error."""

from pathlib import Path

import numpy as np
import pytest

from qsit_plugin.training.data.checks import range_warning
from qsit_plugin.training.data.conversion import Images, ScaleWarning
from qsit_plugin.training.data.ratings import convert_ratings
from qsit_plugin.training.levels import LevelScale

UNCHECKED = Images(Path("photos"), Path("photos"), check=False)


def warning(low: float, high: float, ratings: list[float]) -> str:
    text = range_warning(LevelScale.custom(low, high), ratings)
    assert text is not None
    return text


def test_ratings_of_one_to_five_on_zero_to_a_hundred_are_all_bad_and_that_is_said() -> None:
    text = warning(0, 100, np.linspace(1.2, 4.9, 40).tolist())
    assert "the range 0 to 100 (custom) does not fit these 40 ratings, which go from 1.2 to 4.9" in text
    assert "they go over 4% of the range and all say bad" in text
    assert "(bad 40, poor 0, fair 0, good 0, excellent 0)" in text
    assert "--range LOW HIGH" in text


def test_ratings_that_leave_a_level_empty_are_said() -> None:
    ratings = np.linspace(0, 79, 100).tolist()
    assert "excellent has almost none" in warning(0, 100, ratings)
    assert range_warning(LevelScale.custom(0, 80), ratings) is None


def test_ratings_in_the_middle_of_the_range_are_said() -> None:
    text = warning(0, 100, np.linspace(30, 70, 100).tolist())
    assert "they go over 40% of the range and excellent and bad have almost none" in text


def test_ratings_outside_the_range_are_said_with_their_number() -> None:
    text = warning(1, 5, np.linspace(1, 10, 10).tolist())
    assert "which go from 1 to 10: 50.0% are outside" in text
    assert "outside 5)" in text


def test_ratings_all_outside_are_said_too() -> None:
    assert "100.0% are outside and they go over 0% of the range" in warning(0, 1, [50.0] * 9)


@pytest.mark.parametrize(
    "ratings",
    [
        [],
        [3.0],
        [3.0, 3.1, 3.2, 3.0],  # too few to say anything
        np.linspace(1.5, 4.9, 24).tolist(),
        [*np.linspace(1, 5, 500).tolist(), 5.1],  # one outlier, which is refused by name
    ],
)
def test_ratings_that_fit_or_are_too_few_to_tell_are_not_warned_of(ratings: list[float]) -> None:
    assert range_warning(LevelScale.custom(1, 5), ratings) is None


def test_a_skewed_dataset_on_its_own_range_is_not_warned_of() -> None:
    """As rare as KonIQ's bad: 2.6 %."""
    ratings = [*np.linspace(0, 19, 26).tolist(), *np.linspace(20, 100, 974).tolist()]
    assert range_warning(LevelScale.custom(0, 100), ratings) is None


def test_a_dmos_is_judged_alike() -> None:
    scale = LevelScale.custom(0, 100, lower_is_better=True)
    assert "all say excellent" in (range_warning(scale, [1.0, 2, 3, 4, 5]) or "")


def test_a_conversion_warns_and_keeps_its_rows(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("image,mos\n" + "".join(f"{n}.jpg,{1 + n / 10}\n" for n in range(40)), encoding="utf-8")
    with pytest.warns(ScaleWarning, match="all say bad") as caught:
        result = convert_ratings("csv", path, UNCHECKED, scale=LevelScale.custom(0, 100))
    assert len(result.rows) == 40
    assert result.warnings == [str(caught[0].message)]
    assert caught[0].filename == __file__  # at the caller's line
    assert convert_ratings("csv", path, UNCHECKED, scale=LevelScale.custom(1, 5)).warnings == []


def test_ratings_that_another_datasets_scale_drops_are_said(tmp_path: Path) -> None:
    """KonIQ's rule drops what is below 6.7 without calling it an error; a table of 1 to 10 would be halved by it."""
    path = tmp_path / "mine.csv"
    path.write_text("image,mos\n" + "".join(f"{n}.jpg,{n}\n" for n in range(1, 11)), encoding="utf-8")
    with pytest.warns(ScaleWarning, match=r"60\.0% are outside"):
        result = convert_ratings("csv", path, UNCHECKED, scale=LevelScale.named("koniq"))
    assert (len(result.rows), result.dropped) == (4, 6)


def test_agiqa3k_has_almost_no_excellent_image_on_its_rating_scale(data: Path) -> None:
    path = data / "annotations" / "agiqa3k.csv"
    with pytest.warns(
        ScaleWarning, match=r"2,982 ratings, which go from 0 to 4\.48874: excellent has .* excellent 55\)"
    ):
        convert_ratings("agiqa3k", path, UNCHECKED)
    result = convert_ratings("agiqa3k", path, UNCHECKED, scale=LevelScale.custom(0, 4.5))
    assert result.warnings == []
    assert result.levels["excellent"] == 343
