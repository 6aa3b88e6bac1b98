"""``qsit ask``, ``qsit explain`` and ``qsit compare``."""

import csv
import io
import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import qsit_plugin
from qsit_plugin.cli.talk import write_text
from qsit_plugin.protocol import EXPLAIN
from qsit_plugin.weights.fingerprint import fingerprint

SHORT = ("--max-new-tokens", 8)


def test_explain_prints_the_text_alone_for_one_photo(qsit, album: Path, tiny_folder: Path) -> None:
    result = qsit("explain", album / "a.png", "--model", tiny_folder, *SHORT)
    answer = qsit_plugin.load(tiny_folder).explain(album / "a.png", max_new_tokens=8)
    assert result.exit_code == 0, result.stderr
    assert result.stdout == answer.text + "\n"


def test_several_explanations_stand_each_under_its_name(qsit, album: Path, tiny_folder: Path) -> None:
    (album / "b.png").unlink()
    result = qsit("explain", album, "--model", tiny_folder, *SHORT)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0] == str(album / "a.png")
    assert lines[lines.index(str(album / "c.png")) - 1] == ""


def test_explain_in_jsonl_carries_the_answer_and_the_error(qsit, album: Path, tiny_folder: Path) -> None:
    result = qsit("explain", album, "--format", "jsonl", "--model", tiny_folder, *SHORT)
    assert result.exit_code == 1
    first, broken, _ = map(json.loads, result.stdout.splitlines())
    keys = ["path", "question", "text", "tokens", "finish_reason", "model", "fingerprint", "dtype", "engine", "mode"]
    assert list(first) == keys
    assert (first["question"], first["model"], first["fingerprint"]) == (EXPLAIN, "tiny", fingerprint(tiny_folder))
    assert list(broken) == ["path", "error"]


def test_only_below_explains_the_images_that_score_lower_each_under_its_name(qsit, album, tiny_folder) -> None:
    scores = qsit_plugin.load(tiny_folder).score([album / "a.png", album / "c.png"])
    (worse, low), (better, high) = sorted(zip("ac", (score.value for score in scores), strict=True), key=lambda x: x[1])
    assert low < high
    result = qsit("explain", album, "--only-below", (low + high) / 2, "--model", tiny_folder, *SHORT)
    assert result.exit_code == 1, "b.png cannot be read, which is said once"
    assert "1 of 3 images score below" in result.stderr and result.stderr.count("b.png") == 1
    assert result.stdout.splitlines()[0] == str(album / f"{worse}.png") and f"{better}.png" not in result.stdout
    nothing = qsit("explain", album / "a.png", "--only-below", 0, "--model", tiny_folder)
    assert (nothing.exit_code, nothing.stdout) == (0, "")


def test_several_questions_stand_each_under_its_wording(qsit, album: Path, tiny_folder: Path) -> None:
    arguments = ("-q", "Is it sharp?", "-q", "Is it noisy?")
    result = qsit("ask", album / "a.png", *arguments, "--model", tiny_folder, *SHORT)
    assert result.exit_code == 0
    headings = [line for line in result.stdout.splitlines() if line.startswith("> ")]
    assert headings == ["> Is it sharp?", "> Is it noisy?"]


def test_ask_gives_the_answer_of_the_library(qsit, album: Path, tiny_folder: Path) -> None:
    result = qsit("ask", album / "a.png", "-q", "Is it sharp?", "-f", "jsonl", "--model", tiny_folder, *SHORT)
    answer = qsit_plugin.load(tiny_folder).ask(album / "a.png", "Is it sharp?", max_new_tokens=8)
    row = json.loads(result.stdout)
    assert (row["text"], row["tokens"], row["finish_reason"]) == (answer.text, answer.tokens, answer.finish_reason)


def test_a_row_says_what_changed_the_answer(qsit, album: Path, tiny_folder: Path) -> None:
    wanted = ("-q", "Is it sharp?", "-f", "jsonl", "--exif-rotation", "--model", tiny_folder, *SHORT)
    result = qsit("ask", album / "a.png", *wanted)
    assert json.loads(result.stdout)["mode"] == "EXIF rotation"


@pytest.mark.parametrize("seed", [2**64, -(2**63) - 1])
def test_a_seed_of_more_than_64_bits_is_status_2(qsit, album: Path, tiny_folder: Path, seed: int) -> None:
    result = qsit("ask", album / "a.png", "-q", "Sharp?", "--temperature", 1, "--seed", seed, "--model", tiny_folder)
    assert result.exit_code == 2, result.stderr


def test_ask_without_a_question_is_status_2(qsit, album: Path) -> None:
    assert qsit("ask", album).exit_code == 2


@pytest.mark.parametrize("question", ["", "   ", "What is <image> here?", "is it blurry? " * 5000])
def test_a_question_that_cannot_be_put_is_one_line_and_status_2(
    qsit, album: Path, tiny_folder: Path, question: str
) -> None:
    result = qsit("ask", album / "a.png", "-q", question, "--model", tiny_folder)
    assert result.exit_code == 2
    assert len([line for line in result.stderr.splitlines() if line.startswith("qsit: ")]) == 1


def with_context(folder: Path, copy: Path, context: int, **profile: str) -> Path:
    """The checkpoint with another length of context, and another profile."""
    shutil.copytree(folder, copy)
    for name, changes in (("config.json", {"max_position_embeddings": context}), ("qsit.json", profile)):
        content = json.loads((copy / name).read_text(encoding="utf-8"))
        content.get("text_config", content).update(changes)
        (copy / name).write_text(json.dumps(content), encoding="utf-8")
    return copy


@pytest.mark.parametrize("format", ["text", "jsonl"])
def test_a_photo_that_leaves_the_question_no_room_fails_and_the_others_are_answered(
    qsit, album: Path, tiny_folder: Path, tmp_path: Path, format: str
) -> None:
    folder = with_context(tiny_folder, tmp_path / "short", 500)
    Image.effect_noise((900, 900), 60).convert("RGB").save(album / "b.png")
    question = "is it blurry? " * 25
    result = qsit("ask", album, "-q", question, "-f", format, "--model", folder, *SHORT)
    assert result.exit_code == 1
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("qsit: ")]
    assert "b.png: the question has" in line and "short reads at most 500" in line
    if format == "jsonl":
        first, failed, last = map(json.loads, result.stdout.splitlines())
        assert "reads at most 500" in failed["error"]["message"]
        assert "text" in first and "text" in last


def test_a_profile_longer_than_the_context_is_one_line_and_status_2(
    qsit, album: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    folder = with_context(tiny_folder, tmp_path / "short", 500, question="is it blurry? " * 100)
    result = qsit("score", album / "a.png", "--model", folder)
    assert result.exit_code == 2
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("qsit: ")]
    assert "reads at most 500: shorten the question" in line


def test_damaged_weights_are_one_line_and_status_2(qsit, album: Path, tiny_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_folder, tmp_path / "damaged")
    weights = load_file(folder / "model.safetensors")
    for name in weights:
        if name.endswith("language_model.model.norm.weight"):
            weights[name] = torch.full_like(weights[name], torch.nan)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    for command in (["score"], ["explain"], ["ask", "-q", "Is it sharp?"]):
        result = qsit(*command, album / "a.png", "--model", folder)
        assert result.exit_code == 2
        assert "are damaged: 1 of them hold numbers that are not finite" in result.stderr
        assert result.stderr.count("\n") == 1


def test_streamed_text_loses_the_white_space_around_it_only() -> None:
    stream = io.StringIO()
    write_text(stream, ["  ", " The", " photo", "\n", "\nis ", "sharp. ", "\n"])
    assert stream.getvalue() == "The photo\n\nis sharp.\n"


def test_compare_is_one_row_in_jsonl_and_csv(qsit, album: Path, tiny_folder: Path) -> None:
    arguments = ("compare", album / "a.png", album / "c.png", "--model", tiny_folder)
    row = json.loads(qsit(*arguments, "--format", "jsonl").stdout)
    (flat,) = csv.DictReader(io.StringIO(qsit(*arguments, "--format", "csv").stdout))
    assert 0 <= row["probability_a_better"] <= 1
    assert float(flat["probability_a_better"]) == row["probability_a_better"]
    assert (flat["path_b"], float(flat["score_b"])) == (row["b"]["path"], row["b"]["score"])
    assert flat["fingerprint"] == row["a"]["fingerprint"] == row["b"]["fingerprint"] == fingerprint(tiny_folder)


def test_compare_agrees_with_itself_the_other_way_round(qsit, album: Path, tiny_folder: Path) -> None:
    pair = (album / "a.png", album / "c.png")
    one, other = (
        json.loads(qsit("compare", *names, "--format", "jsonl", "--model", tiny_folder).stdout)["probability_a_better"]
        for names in (pair, pair[::-1])
    )
    assert one + other == pytest.approx(1, abs=1e-6)


def test_compare_with_a_broken_photo_is_status_1(qsit, album: Path, tiny_folder: Path) -> None:
    result = qsit("compare", album / "a.png", album / "b.png", "--model", tiny_folder)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "b.png" in result.stderr
