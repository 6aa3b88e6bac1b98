"""qsit train evaluate: its table, its JSON, and what stops it."""

import json
from pathlib import Path

import pytest

from qsit_plugin.protocol import ScoreProfile
from qsit_plugin.weights.fingerprint import fingerprint


@pytest.fixture
def rows(tiny_folder: Path, album: Path) -> Path:
    """A rating and a choice, both of a.png, and a rating of c.png."""
    from qsit_plugin.training.data.rows import TrainingRow, score_messages, write_rows

    profile = ScoreProfile.load(tiny_folder)
    texts = ("Is it noisy?\nA. Yes\nB. No", "A")
    turns = [
        {"role": role, "content": [{"type": "text", "text": text}]}
        for role, text in zip(("user", "assistant"), texts, strict=True)
    ]
    turns[0]["content"].append({"type": "image"})
    found = [
        TrainingRow("a", "a.png", "score", score_messages("poor", profile), 30.0, (0, 0, 0.2, 0.8, 0), "mine"),
        TrainingRow("c", "c.png", "score", score_messages("good", profile), 70.0, (0, 0.8, 0.2, 0, 0), "mine"),
        TrainingRow("q", "a.png", "interpret", turns, source="talk"),
    ]
    return write_rows(album / "rows.jsonl", found)


def test_a_model_is_measured_on_rows(qsit, tiny_folder: Path, rows: Path) -> None:
    out = rows.parent / "figures.json"
    result = qsit("train", "evaluate", tiny_folder, "--data", rows, "--images", rows.parent, "--out", out)
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0] == "2 images: 2 ratings, 1 conversations"
    assert [line.split("  ")[0] for line in lines[1:4]] == ["score loss", "level mass", "interpret loss"]
    figures = json.loads(out.read_text(encoding="utf-8"))
    assert f"{figures['accuracy']:.2%} of 1 choices, chance 50.00%" in lines[4]
    assert lines[5].split() == ["yes-no", f"{figures['accuracy']:.2%}"]
    assert figures["fingerprint"] == fingerprint(tiny_folder)
    assert (figures["srcc"], figures["counts"]["choices"], figures["data"]) == (None, 1, "rows.jsonl")


def test_written_answers_are_named_as_such(qsit, tiny_folder: Path, rows: Path) -> None:
    command = ["train", "evaluate", tiny_folder, "--data", rows, "--images", rows.parent, "--answers", "generate"]
    assert "accuracy, written answers" in qsit(*command).stdout


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"--answers": "aloud"}, "no way to answer 'aloud': give one of letter, generate"),
        ({"--images": "absent"}, "no folder absent: --images is the one that the rows' image paths are relative to"),
        ({"--data": "absent.jsonl"}, "no file absent.jsonl; qsit train convert writes one"),
        ({"--out": "absent/figures.json"}, "the folder absent does not exist"),
        ({"--profile": "nope"}, "no profile 'nope'"),
    ],
)
def test_what_stops_it_is_said_with_its_cure(qsit, tiny_folder: Path, rows: Path, changes, message: str) -> None:
    options = {"--data": rows, "--images": rows.parent} | changes
    result = qsit("train", "evaluate", tiny_folder, *(part for pair in options.items() for part in pair))
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr


def test_a_photo_that_is_not_there_is_named(qsit, tiny_folder: Path, rows: Path) -> None:
    (rows.parent / "c.png").unlink()
    result = qsit("train", "evaluate", tiny_folder, "--data", rows, "--images", rows.parent)
    assert result.exit_code == 2
    assert "c.png" in result.stderr
