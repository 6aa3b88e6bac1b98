"""``--max-tiles`` and ``--max-image-tokens`` on the command line."""

import json
from pathlib import Path

import pytest
from PIL import Image


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    Image.effect_noise((700, 500), 60).convert("RGB").save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def test_a_limited_score_says_so_in_its_row_and_on_stderr(qsit, photo: Path, tiny_folder: Path) -> None:
    limits = ("--max-tiles", 4, "--max-image-tokens", 200)
    result = qsit("score", photo, "-f", "jsonl", "-m", tiny_folder, *limits)
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["mode"] == "at most 4 tiles, at most 200 image tokens"
    assert "at most 4 tiles and at most 200 image tokens: faster, but scores differ" in result.stderr


def test_a_limit_that_nothing_reaches_says_that_scores_are_the_released_ones(
    qsit, photo: Path, tiny_folder: Path
) -> None:
    result = qsit("score", photo, "-f", "jsonl", "-m", tiny_folder, "--max-tiles", 36)
    assert json.loads(result.stdout)["mode"] == "released"
    assert "no image reaches these limits with tiny: scores are the released ones" in result.stderr


def test_without_a_limit_stderr_does_not_speak_of_limits(qsit, photo: Path, tiny_folder: Path) -> None:
    assert "limit" not in qsit("score", photo, "-m", tiny_folder).stderr


@pytest.mark.parametrize("command", ["score", "info"])
def test_a_limit_that_the_grids_cannot_keep_is_wrong_usage(qsit, photo: Path, tiny_folder: Path, command: str) -> None:
    paths = [photo] if command == "score" else []
    result = qsit(command, *paths, "-m", tiny_folder, "--max-image-tokens", 20)
    assert result.exit_code == 2
    assert "max_image_tokens must be a whole number from 136 on, or None for no limit; got 20" in result.stderr


def test_info_says_what_a_limit_leaves_and_does_not_compare_the_golden_score(qsit, nano) -> None:
    result = qsit("info", "--max-tiles", 4)
    assert result.exit_code == 0, result.stderr
    assert "8, of 1 to 4 tiles of 128 pixels and a base view, up to 352 tokens" in result.stdout
    assert "not compared: it holds without limits" in result.stdout
