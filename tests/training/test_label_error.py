"""Soft labels against the ratings they stand for: the figures, on real datasets where they are there."""

import json
import warnings
from pathlib import Path

import numpy as np
import pytest

from qsit_plugin.evaluation.datasets.authentic import Columns
from qsit_plugin.evaluation.datasets.ratings import DatasetError
from qsit_plugin.protocol import LEVELS
from qsit_plugin.training.data.checks import LabelError, label_error
from qsit_plugin.training.data.conversations import convert_conversations
from qsit_plugin.training.data.conversion import Conversion, Images, ScaleWarning
from qsit_plugin.training.data.ratings import convert_ratings
from qsit_plugin.training.data.rows import TrainingRow, to_record, write_rows
from qsit_plugin.training.levels import LevelScale

UNCHECKED = Images(Path("photos"), Path("photos"), check=False)
SCALE = LevelScale.custom(0, 100)


def row(mos: float | None, *probabilities: float) -> TrainingRow:
    turns = [
        ("user", [{"type": "image"}, {"type": "text", "text": "?"}]),
        ("assistant", [{"type": "text", "text": "!"}]),
    ]
    messages = [{"role": role, "content": content} for role, content in turns]
    return TrainingRow("1", "1.jpg", "score", messages, mos, probabilities or None)


def error_of(result: Conversion) -> LabelError:
    (error,) = result.label_errors().values()
    return error


def assert_on_range(error: LabelError) -> None:
    """The bounds of a label on the ruler of its rating; .8 of equal words are inherent."""
    assert abs(error.labels - error.mos) <= 0.01
    assert error.error <= 0.06
    assert error.apart <= 1
    assert error.same > 0.75
    assert error.on_range


def test_the_figures_are_means_over_the_rated_rows() -> None:
    rows = [row(50, 0, 0, 1, 0, 0), row(100, 0, 1, 0, 0, 0), row(10, 0, 0, 0, 0, 1), row(None, 1, 0, 0, 0, 0), row(5)]
    error = label_error(SCALE, rows)
    assert error is not None
    assert (error.rows, error.mos, error.labels) == (3, pytest.approx(1.6 / 3), pytest.approx(1.25 / 3))
    assert error.error == pytest.approx(4 * np.sqrt((0 + 0.25**2 + 0.1**2) / 3))
    assert (error.same, error.apart, error.on_range) == (pytest.approx(2 / 3), 1, False)


def test_on_a_dmos_the_good_end_is_one() -> None:
    error = label_error(LevelScale.named("csiq"), [row(0.25, 0, 1, 0, 0, 0)])
    assert error is not None
    assert (error.mos, error.labels, error.error) == (0.75, 0.75, 0.0)


def test_rows_without_ratings_or_soft_labels_have_no_figures() -> None:
    assert label_error(SCALE, [row(None, 1, 0, 0, 0, 0), row(50)]) is None


def test_koniqs_soft_labels_lie_on_the_range_of_its_mos(data: Path) -> None:
    result = convert_ratings("koniq", data / "annotations" / "koniq10k_votes.csv", UNCHECKED)
    error = error_of(result)
    assert error.rows == 7046
    assert_on_range(error)
    assert result.warnings == []
    assert error.mos == pytest.approx(0.662, abs=5e-4)
    excellent = [row for row in result.rows if row.answer.endswith(" excellent.")]
    assert sum(row.level_probs.index(max(row.level_probs)) == 0 for row in excellent if row.level_probs) > 1000


def test_koniqs_votes_are_had_by_name_and_are_on_another_ruler(data: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", ScaleWarning)  # they were asked for
        result = convert_ratings("koniq", data / "annotations" / "koniq10k_votes.csv", UNCHECKED, soft="votes")
    error = error_of(result)
    assert (error.labels, error.error, error.same) == pytest.approx((0.541, 0.541, 0.343), abs=5e-4)
    assert error.apart == 2
    assert result.rows[0].level_probs == (0.066667, 0.695238, 0.238095, 0.0, 0.0)


@pytest.mark.parametrize(("name", "file"), [("kadid10k", "kadid10k_mos_sd.txt"), ("agiqa3k", "agiqa3k.csv")])
@pytest.mark.filterwarnings("ignore::qsit_plugin.training.data.conversion.ScaleWarning")
def test_other_datasets_with_deviations_lie_on_their_range(data: Path, name: str, file: str) -> None:
    result = convert_ratings(name, data / "annotations" / file, UNCHECKED)
    assert_on_range(error_of(result))
    assert bool(result.warnings) == (name == "agiqa3k")  # for its range: see test_range_fit.py


@pytest.mark.parametrize("name", ["koniq", "spaq"])
def test_the_published_rows_lie_on_their_range(data: Path, name: str) -> None:
    result = convert_conversations("qsit", data / "official" / f"train_{name}_qsit.json", UNCHECKED)
    assert result.warnings == []
    error = error_of(result)
    assert error.error < 1e-5
    assert (error.on_range, error.apart) == (True, 1)


@pytest.mark.parametrize("lower_is_better", [False, True])
def test_a_table_with_deviations_lies_on_its_range_in_either_direction(tmp_path: Path, lower_is_better: bool) -> None:
    """Deviations as people give them (wide in the middle) and as no people do (wide at the ends)."""
    rng = np.random.default_rng(0)
    mos, sd = rng.uniform(1, 10, 400).round(3), rng.uniform(0, 6, 400).round(3)
    lines = [f"{number}.jpg,{m},{s}" for number, (m, s) in enumerate(zip(mos, sd, strict=True))]
    path = tmp_path / "mine.csv"
    path.write_text("\n".join(["image,mos,sd", *lines]) + "\n", encoding="utf-8")
    columns = Columns(sd="sd", lower_is_better=lower_is_better)
    scale = LevelScale.custom(1, 10, lower_is_better=lower_is_better)
    error = error_of(convert_ratings("csv", path, UNCHECKED, columns=columns, scale=scale))
    assert (error.on_range, error.apart) == (True, 1)
    assert error.error < 1e-5
    assert error.mos == pytest.approx(np.mean((10 - mos if lower_is_better else mos - 1) / 9))


def test_votes_of_a_dataset_that_has_none_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("image,mos\n1.jpg,50\n", encoding="utf-8")
    with pytest.raises(DatasetError, match="mine has no vote shares for soft labels: only KonIQ-10k has"):
        convert_ratings("csv", path, UNCHECKED, scale=SCALE, soft="votes")
    with pytest.raises(ValueError, match="made from one of rating, votes, not from 'shares'"):
        convert_ratings("csv", path, UNCHECKED, scale=SCALE, soft="shares")


def test_rows_of_an_earlier_version_with_votes_as_labels_are_warned_of(tmp_path: Path) -> None:
    path = tmp_path / "koniq.csv"
    header = "image_name,c1,c2,c3,c4,c5,c_total,MOS,SD,set\n"
    lines = (f"{number}.jpg,0,0,0.25,0.7,0.05,100,{70 + number},0.5,training\n" for number in range(4))
    path.write_text(header + "".join(lines), encoding="utf-8")
    old = convert_ratings("koniq", path, UNCHECKED, soft="votes", partial=True)
    rows = write_rows(tmp_path / "old.jsonl", old.rows)
    with pytest.warns(
        ScaleWarning, match=r"are not on the range of the ratings \(koniq\).*convert the annotation file"
    ):
        again = convert_conversations("jsonl", rows, UNCHECKED)
    assert len(again.warnings) == 1
    new = convert_ratings("koniq", path, UNCHECKED, partial=True)
    assert convert_conversations("jsonl", write_rows(tmp_path / "new.jsonl", new.rows), UNCHECKED).warnings == []


def test_labels_survive_their_six_decimals(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("image,mos,sd\n1.jpg,97.3,31\n", encoding="utf-8")
    (one,) = convert_ratings("csv", path, UNCHECKED, scale=SCALE, columns=Columns(sd="sd")).rows
    saved = json.loads(json.dumps(to_record(one)))["level_probs"]
    assert len(saved) == len(LEVELS)
    assert SCALE.number(saved) == pytest.approx(97.3, abs=1e-3)


@pytest.mark.parametrize("change", [lambda five: five[::-1], lambda five: (0.2,) * 5], ids=["reversed", "flat"])
def test_labels_that_contradict_the_words_of_their_rows_are_warned_of_whatever_their_source(tmp_path: Path, change):
    path = tmp_path / "mine.csv"
    path.write_text("image,mos\n" + "".join(f"{n}.jpg,{n % 101}\n" for n in range(0, 1010, 7)), encoding="utf-8")
    columns = Columns("image", "mos")
    result = convert_ratings("csv", path, UNCHECKED, scale=SCALE, columns=columns)
    rows = [TrainingRow(**vars(row) | {"level_probs": change(row.level_probs)}) for row in result.rows]
    write_rows(tmp_path / "mine.jsonl", rows)
    with pytest.warns(ScaleWarning, match="more than a level away from the word"):
        convert_conversations("jsonl", tmp_path / "mine.jsonl", UNCHECKED)
    write_rows(tmp_path / "mine.jsonl", result.rows)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        convert_conversations("jsonl", tmp_path / "mine.jsonl", UNCHECKED)


def test_a_deviation_that_ratings_on_the_scale_cannot_have_is_a_bad_row(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("image,mos,sd\n1.jpg,3,60\n2.jpg,4,1\n", encoding="utf-8")
    columns = Columns("image", "mos", sd="sd")
    result = convert_ratings("csv", path, UNCHECKED, scale=LevelScale.custom(1, 5), columns=columns)
    assert len(result.rows) == 1
    assert "a standard deviation of 60 is impossible for ratings from 1 to 5" in "".join(result.problems.lines())


def test_a_table_called_as_a_published_dataset_does_not_get_its_range(tmp_path: Path) -> None:
    path = tmp_path / "spaq.csv"
    path.write_text("image,mos\n1.jpg,1\n2.jpg,5\n", encoding="utf-8")
    scale = LevelScale.custom(0, 5)
    result = convert_ratings("csv", path, UNCHECKED, scale=scale, columns=Columns("image", "mos"))
    assert {row.source for row in result.rows} == {"spaq.csv"}
    write_rows(tmp_path / "rows.jsonl", result.rows)
    assert not convert_conversations("jsonl", tmp_path / "rows.jsonl", UNCHECKED).problems
