"""``qsit weights list | verify | download | convert``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import qsit_plugin


@pytest.fixture
def golden(tiny_folder: Path, album: Path, tmp_path: Path):
    """``golden(offset)`` -> a file of golden values for album/a.png whose score is off by ``offset``."""

    def write(offset: float = 0.0, image: str | None = None) -> Path:
        model = qsit_plugin.load(tiny_folder)
        content = {
            "image": image,
            "logits": model.level_logits(album / "a.png")[0].tolist(),
            "score": model.score(album / "a.png").value + offset,
            "note": "the noisy one",
        }
        path = tmp_path / "values.json"
        path.write_text(json.dumps(content), encoding="utf-8")
        return path

    return write


def test_list_names_every_checkpoint_and_how_to_get_it(qsit) -> None:
    result = qsit("weights", "list")
    assert result.exit_code == 0
    names = [line.split()[0] for line in result.stdout.splitlines() if not line.startswith(" ")]
    assert names == ["qsit-nano", "qsit-mini", "qsit"]


@pytest.mark.parametrize(("offset", "word", "status"), [(0.0, "pass", 0), (0.02, "drift", 1), (-0.1, "broken", 1)])
def test_verify_judges_the_difference_of_the_scores(
    qsit, golden, album: Path, tiny_folder: Path, offset: float, word: str, status: int
) -> None:
    result = qsit("weights", "verify", tiny_folder, "--golden", golden(offset), "--image", album / "a.png")
    assert result.exit_code == status, result.stderr
    assert result.stdout.splitlines()[-1] == f"verdict: {word}"


def test_verify_shows_both_rows_of_logits(qsit, golden, album: Path, tiny_folder: Path) -> None:
    result = qsit("weights", "verify", tiny_folder, "--golden", golden(), "--image", album / "a.png")
    rows = {line.split()[0]: line.split()[1:] for line in result.stdout.splitlines() if line.count(".") == 6}
    assert list(rows) == ["golden", "here", "difference"]
    assert rows["golden"] == rows["here"]


def test_verify_sees_another_picture_as_broken_or_drift(qsit, golden, album: Path, tiny_folder: Path) -> None:
    result = qsit("weights", "verify", tiny_folder, "--golden", golden(), "--image", album / "c.png")
    assert result.exit_code == 1


def test_verify_without_golden_values_says_what_to_give(qsit, tiny_folder: Path) -> None:
    result = qsit("weights", "verify", tiny_folder)
    assert result.exit_code == 2
    assert "--golden FILE" in result.stderr


def test_verify_without_the_picture_says_what_to_give(qsit, golden, tiny_folder: Path) -> None:
    result = qsit("weights", "verify", tiny_folder, "--golden", golden())
    assert result.exit_code == 2
    assert "--image FILE (the noisy one)" in result.stderr


def test_verify_of_a_missing_picture_is_status_1(qsit, golden, tiny_folder: Path, tmp_path: Path) -> None:
    result = qsit("weights", "verify", tiny_folder, "--golden", golden(), "--image", tmp_path / "gone.png")
    assert result.exit_code == 1
    assert "gone.png" in result.stderr


def test_the_embedded_model_verifies_itself(qsit, nano) -> None:
    result = qsit("weights", "verify", "qsit-nano")
    assert result.exit_code == 0, result.stdout + result.stderr


def test_download_of_a_misspelt_name_suggests_the_right_one(qsit) -> None:
    result = qsit("weights", "download", "qsit-mimi")
    assert result.exit_code == 2
    assert "qsit-mini" in result.stderr


def test_download_without_a_network_is_one_line_and_status_2(qsit) -> None:
    """HF_HUB_OFFLINE is set for all tests (see tests/conftest.py)."""
    result = qsit("weights", "download", "qsit-mini")
    assert (result.exit_code, result.stdout) == (2, "")
    assert len(result.stderr.splitlines()) == 1


def test_download_of_the_embedded_model_prints_its_folder(qsit, nano) -> None:
    result = qsit("weights", "download", "qsit-nano")
    assert result.exit_code == 0
    assert Path(result.stdout.strip()) == nano.folder


def test_convert_refuses_what_is_not_llava_next(qsit, tiny_folder: Path, tmp_path: Path) -> None:
    result = qsit("weights", "convert", tiny_folder, tmp_path / "new")
    assert (result.exit_code, result.stdout) == (2, "")
    assert len([line for line in result.stderr.splitlines() if line.startswith("qsit: ")]) == 1
    assert not (tmp_path / "new").exists()
