"""``qsit score --out FILE.sqlite`` and ``qsit export``, with the embedded model."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import pytest

from qsit_plugin.bulk import Scorer
from qsit_plugin.scores import COLUMNS


def test_a_folder_is_scored_once_and_its_table_is_that_of_score(qsit, album: Path, tmp_path: Path) -> None:
    store = tmp_path / "s.sqlite"
    first = qsit("score", album, "--out", store)
    assert first.exit_code == 1
    assert "4 images: 3 scored, 0 known, 1 failed" in first.stderr
    assert f"{album / 'bad.png'}: not an image that can be read" in first.stderr
    assert first.stdout == ""
    assert "4 images: 0 scored, 3 known, 1 failed" in qsit("score", album, "--out", store).stderr
    assert qsit("score", album, "--out", tmp_path / "plain.jsonl").exit_code == 1
    assert qsit("export", store, tmp_path / "x.jsonl").exit_code == 0
    read = [
        {row["path"]: row for row in map(json.loads, (tmp_path / name).read_text("utf-8").splitlines())}
        for name in ("plain.jsonl", "x.jsonl")
    ]
    assert set(read[0]) == set(read[1])
    for path, plain in read[0].items():
        row = read[1][path]
        assert list(row) == list(plain)
        if "score" in plain:
            assert row["score"] == pytest.approx(plain["score"], abs=1e-6)
            assert {k: v for k, v in row.items() if not isinstance(v, float | dict)} == {
                k: v for k, v in plain.items() if not isinstance(v, float | dict)
            }
        else:
            assert row == plain


def test_another_profile_is_another_score_of_the_same_image(qsit, album: Path, tmp_path: Path) -> None:
    from qsit_plugin.protocol import ScoreProfile

    own = Scorer().model.profile
    other = ScoreProfile(**{**own.__dict__, "weights": (1.0, 0.9, 0.5, 0.25, 0.0)}).save(tmp_path / "other.json")
    store = tmp_path / "s.sqlite"
    assert "1 scored" in qsit("score", album / "a.png", "--out", store).stderr
    assert "1 scored" in qsit("score", album / "a.png", "--out", store, "--profile", other).stderr
    assert "1 scored" in qsit("score", album / "a.png", "--out", store, "--exif-rotation").stderr
    assert "0 scored, 1 known" in qsit("score", album / "a.png", "--out", store, "--max-pixels", 1000).stderr
    refused = qsit("export", store, tmp_path / "x.csv")
    assert refused.exit_code == 2 and "--recipe" in refused.stderr and "other.json" in refused.stderr
    assert not (tmp_path / "x.csv").exists()
    assert qsit("export", store, tmp_path / "x.csv", "--recipe", 2).exit_code == 0
    row = next(csv.DictReader((tmp_path / "x.csv").read_text("utf-8").splitlines()))
    assert list(row) == list(COLUMNS) and row["profile"] == str(other)


def test_patterns_list_files_and_missing_names(qsit, album: Path, tmp_path: Path) -> None:
    names = tmp_path / "names.txt"
    names.write_bytes(os.fsencode(album / "b.png") + b"\r\n\n" + os.fsencode(album / "gone.png") + b"\n")
    found = qsit("score", album / "a*.png", album / "z*.png", "--list", names, "--out", tmp_path / "s.sqlite")
    assert found.exit_code == 1
    assert "4 images: 2 scored, 0 known, 2 failed" in found.stderr
    assert "no file matches this pattern" in found.stderr and "gone.png: no such file" in found.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("--verify",),
        ("--list", "x"),
        ("--format", "sqlite"),
        ("--out", "no/such/s.sqlite"),
        ("--out", ".", "-f", "sqlite"),
    ],
)
def test_a_wrong_choice_is_one_line_and_status_2_before_a_model_is_loaded(qsit, album: Path, arguments) -> None:
    result = qsit("score", album, *arguments, "--model", "no-such-model")
    assert result.exit_code == 2 and "no-such-model" not in result.stderr


def test_a_file_of_another_program_as_store_is_status_2(qsit, album: Path, tmp_path: Path) -> None:
    (tmp_path / "s.sqlite").write_text("a letter to a friend " * 99)
    result = qsit("score", album, "--out", tmp_path / "s.sqlite")
    assert result.exit_code == 2 and "name another file" in result.stderr
    assert qsit("export", tmp_path / "s.sqlite", tmp_path / "x.csv").exit_code == 2
    assert qsit("export", tmp_path / "gone.sqlite", tmp_path / "x.csv").exit_code == 2
