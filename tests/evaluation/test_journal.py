"""The scores on disk: what is kept, what is dropped, and what is refused."""

import json
from pathlib import Path

import pytest

from qsit_plugin.evaluation.journal import Journal, JournalError

ABOUT = {"name": "koniq", "annotations": "abc", "images": "/data"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "run.scores.jsonl"
    with Journal(path, ABOUT) as journal:
        journal.begin("qsit-nano", {"dtype": "float32"})
        journal.write("qsit-nano", "Übung €.jpg", {"score": 0.1})
        journal.write("qsit-nano", "b.jpg", {"error": "broken"})
    return path


def test_what_was_written_is_there_when_the_journal_is_opened_again(path: Path) -> None:
    with Journal(path, ABOUT) as journal:
        journal.begin("qsit-nano", {"dtype": "float32"})
        assert journal.entries["qsit-nano"] == {"Übung €.jpg": {"score": 0.1}, "b.jpg": {"error": "broken"}}
        assert journal.done("qsit-nano") == {"Übung €.jpg"}  # an error is tried again
    assert len(path.read_text(encoding="utf-8").splitlines()) == 4


def test_a_line_is_on_disk_before_the_journal_is_closed(tmp_path: Path) -> None:
    with Journal(tmp_path / "run.jsonl", ABOUT) as journal:
        journal.write("m", "a.jpg", {"score": 1.0})
        assert json.loads((tmp_path / "run.jsonl").read_text(encoding="utf-8").splitlines()[-1])["image"] == "a.jpg"


def test_a_half_written_last_line_is_dropped_and_the_file_goes_on_whole(path: Path) -> None:
    with open(path, "a", encoding="utf-8") as stream:
        stream.write('{"metric": "qsit-nano", "image": "c.jpg", "sc')
    with Journal(path, ABOUT) as journal:
        assert "c.jpg" not in journal.entries["qsit-nano"]
        journal.write("qsit-nano", "c.jpg", {"score": 0.3})
    assert all(json.loads(line) for line in path.read_text(encoding="utf-8").splitlines())
    with Journal(path, ABOUT) as journal:
        assert journal.entries["qsit-nano"]["c.jpg"] == {"score": 0.3}


def test_a_file_that_stopped_within_its_first_line_starts_again(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    path.write_text('{"dataset": {"na', encoding="utf-8")
    with Journal(path, ABOUT):
        pass
    assert json.loads(path.read_text(encoding="utf-8")) == {"dataset": ABOUT}


@pytest.mark.parametrize("key", ["name", "annotations", "images"])
def test_scores_on_another_dataset_are_refused_with_the_cure(path: Path, key: str) -> None:
    with pytest.raises(JournalError) as caught:
        Journal(path, {**ABOUT, key: "other"})
    assert f"{key} was {ABOUT[key]}, is other" in str(caught.value)
    assert "delete the file to start again, or give --out another name" in str(caught.value)


def test_a_changed_metric_is_refused_with_the_cure(path: Path) -> None:
    with Journal(path, ABOUT) as journal, pytest.raises(JournalError) as caught:
        journal.begin("qsit-nano", {"dtype": "bfloat16"})
    assert "qsit-nano differed: dtype was float32, is bfloat16; delete the file" in str(caught.value)


def test_a_line_that_is_no_score_and_a_file_of_another_kind_are_refused(path: Path, tmp_path: Path) -> None:
    with open(path, "a", encoding="utf-8") as stream:
        stream.write("hello\n")
    with pytest.raises(JournalError, match="line 5 is not a line of a run"):
        Journal(path, ABOUT)
    other = tmp_path / "other.jsonl"
    other.write_text('{"metric": "m", "image": "a", "score": 1}\n', encoding="utf-8")
    with pytest.raises(JournalError, match="does not say which dataset"):
        Journal(other, ABOUT)


def test_a_second_run_on_the_same_journal_is_refused_and_leaves_it_as_it_is(path: Path) -> None:
    with Journal(path, ABOUT):
        before = path.read_bytes()
        with pytest.raises(JournalError, match="is being written by another run"):
            Journal(path, ABOUT)
        assert path.read_bytes() == before
    with Journal(path, ABOUT), pytest.raises(JournalError):
        Journal(path, {**ABOUT, "name": "spaq"})
    with pytest.raises(JournalError, match="earlier run"):
        Journal(path, {**ABOUT, "name": "spaq"})
    with Journal(path, ABOUT):  # a refusal holds no lock
        pass


def test_an_image_whose_name_holds_a_line_separator_of_unicode_is_known_afterwards(tmp_path: Path) -> None:
    path, names = tmp_path / "run.jsonl", {"a\u2028b.jpg", "c\x85d.jpg"}
    with Journal(path, ABOUT) as journal:
        for name in names:
            journal.write("m", name, {"score": 1.0})
    with Journal(path, ABOUT) as journal:
        assert journal.done("m") == names
