"""``qsit score``: rows, formats, exit status."""

import csv
import io
import json
from pathlib import Path

import pytest

from qsit_plugin.weights.fingerprint import fingerprint
from tests.tiny import tiny_checkpoint

KEYS = [
    "path", "score", "level", "probabilities", "std", "level_mass", "width", "height", "model", "fingerprint",
    "dtype", "engine", "profile", "mode", "scope", "scope_kind",
]  # fmt: skip


def test_a_jsonl_row_has_the_documented_keys_in_order(qsit, album: Path, tiny_folder: Path) -> None:
    result = qsit("score", album / "a.png", "--format", "jsonl", "--model", tiny_folder)
    assert result.exit_code == 0, result.stderr
    row = json.loads(result.stdout)
    assert list(row) == KEYS
    assert list(row["probabilities"]) == ["excellent", "good", "fair", "poor", "bad"]
    assert (row["path"], row["width"], row["height"]) == (str(album / "a.png"), 64, 48)
    assert (row["model"], row["dtype"], row["profile"], row["mode"]) == ("tiny", "float32", "training", "released")
    assert (row["scope"], row["scope_kind"]) == ("synthetic distortions", "distortions")


def test_the_score_is_that_of_the_library(qsit, album: Path, tiny_folder: Path) -> None:
    import qsit_plugin

    row = json.loads(qsit("score", album / "a.png", "-f", "jsonl", "-m", tiny_folder).stdout)
    score = qsit_plugin.load(tiny_folder).score(album / "a.png")
    assert row["score"] == pytest.approx(score.value, abs=1e-6)
    assert row["probabilities"] == pytest.approx(score.probabilities, abs=1e-6)
    record = score.to_dict()
    assert all(row[name] == record[name] for name in KEYS if name not in ("path", "profile"))


def test_rows_of_two_checkpoints_of_one_name_are_told_apart(qsit, album: Path, tiny_folder: Path, tmp_path) -> None:
    other = tiny_checkpoint(tmp_path / "tiny", official=False, seed=1)
    one, two = (json.loads(qsit("score", album / "a.png", "-f", "jsonl", "-m", m).stdout) for m in (tiny_folder, other))
    assert one["model"] == two["model"] == "tiny"
    assert (one["fingerprint"], two["fingerprint"]) == (fingerprint(tiny_folder), fingerprint(other))
    assert one["fingerprint"] != two["fingerprint"]


def test_a_broken_input_is_reported_and_the_rest_is_scored_with_status_1(qsit, album: Path, tiny_folder: Path) -> None:
    result = qsit("score", album, "--format", "jsonl", "--model", tiny_folder)
    assert result.exit_code == 1
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert [Path(row["path"]).name for row in rows] == ["a.png", "b.png", "c.png"]
    assert list(rows[1]) == ["path", "error"]
    assert list(rows[1]["error"]) == ["type", "message"]
    assert rows[1]["error"]["type"] == "ImageError"
    lines = [line for line in result.stderr.splitlines() if "b.png" in line]
    assert len(lines) == 1
    assert rows[1]["error"]["message"] in lines[0]


def test_csv_is_flat_and_holds_the_error_in_its_own_column(qsit, album: Path, tiny_folder: Path) -> None:
    result = qsit("score", album, "--format", "csv", "--model", tiny_folder)
    good, bad, _ = csv.DictReader(io.StringIO(result.stdout))
    shares = [float(good[name]) for name in ("excellent", "good", "fair", "poor", "bad")]
    assert sum(shares) == pytest.approx(1, abs=1e-6)
    assert good["error"] == ""
    assert bad["error"].startswith("ImageError: ")
    assert bad["score"] == ""


def test_the_table_without_a_terminal_is_plain_lines(qsit, album: Path, tiny_folder: Path) -> None:
    result = qsit("score", album, "--model", tiny_folder)
    header, first, second, third = result.stdout.splitlines()
    assert header.split() == ["score", "spread", "level", "size", "path"]
    assert first.split()[-2:] == ["64x48", str(album / "a.png")]
    assert second.split() == ["-", "-", "error", "-", str(album / "b.png")]
    assert result.stdout.isascii()


def test_out_writes_utf8_in_the_format_of_its_suffix_and_leaves_stdout_empty(
    qsit, album: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    photo = (album / "a.png").rename(album / "Übung €.png")
    target = tmp_path / "scores.jsonl"
    result = qsit("score", photo, "--out", target, "--model", tiny_folder)
    assert (result.exit_code, result.stdout) == (0, "")
    assert json.loads(target.read_text(encoding="utf-8"))["path"] == str(photo)


def test_the_header_line_says_what_produced_the_numbers(qsit, album: Path, tiny_folder: Path) -> None:
    stderr = qsit("score", album / "a.png", "--model", tiny_folder, "--device", "cpu").stderr
    assert stderr.splitlines()[0].startswith("tiny on cpu, float32: ")
    assert "--model qsit-mini" in stderr


def test_a_missing_file_and_an_empty_folder_fail_without_loading_a_model(qsit, tmp_path: Path) -> None:
    result = qsit("score", tmp_path, tmp_path / "gone.jpg", "--model", tmp_path / "no-such-model")
    assert result.exit_code == 1
    assert "no image files in this folder" in result.stderr
    assert "gone.jpg: no such file" in result.stderr
    assert "2 of 2 inputs failed" in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("--model", "qsit-nanno"),
        ("--device", "toaster"),
        ("--dtype", "int3"),
        ("--profile", "no-such-profile"),
        ("--format", "xlsx"),
        ("--out", "scores.xlsx"),
        ("--out", "no/such/folder/scores.csv"),
    ],
)
def test_a_wrong_choice_is_one_line_and_status_2(qsit, album: Path, tiny_folder: Path, arguments: tuple) -> None:
    model = () if "--model" in arguments else ("--model", tiny_folder)
    result = qsit("score", album / "a.png", *model, *arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    lines = [line for line in result.stderr.splitlines() if line.startswith("qsit: ")]
    assert len(lines) == 1
    assert arguments[1].split("/")[0] in lines[0]


def test_an_input_is_never_overwritten_by_out(qsit, album: Path) -> None:
    before = (album / "a.png").read_bytes()
    result = qsit("score", album, "--format", "csv", "--out", album / "a.png")
    assert result.exit_code == 2
    assert (album / "a.png").read_bytes() == before


def test_an_unknown_option_is_status_2(qsit, album: Path) -> None:
    assert qsit("score", album, "--no-such-option").exit_code == 2


def test_score_without_a_path_is_status_2(qsit) -> None:
    assert qsit("score").exit_code == 2


@pytest.mark.parametrize("name", ["loop.png", "broken.png"])
@pytest.mark.parametrize("way", ["named", "in its folder"])
def test_a_link_that_leads_nowhere_is_a_row_and_the_others_are_scored(
    qsit, album: Path, tiny_folder: Path, tmp_path: Path, name: str, way: str
) -> None:
    try:
        (album / name).symlink_to(name if name == "loop.png" else "nowhere")
    except OSError:
        pytest.skip("this user may not make links")
    (album / "b.png").unlink()
    out = tmp_path / "x.jsonl"
    given = [album] if way == "in its folder" else [album / "a.png", album / "c.png", album / name]
    result = qsit("score", *given, "--out", out, "--model", tiny_folder)
    rows = {Path(row["path"]).name: row for row in map(json.loads, out.read_text(encoding="utf-8").splitlines())}
    assert result.exit_code == 1
    assert "1 of 3 inputs failed" in result.stderr
    assert [name for name, row in sorted(rows.items()) if "score" in row] == ["a.png", "c.png"]
    said = "a link that leads back to itself" if name == "loop.png" else "a link to nowhere, which is not there"
    assert said in rows[name]["error"]["message"]


def test_a_link_that_loops_as_out_is_one_line(qsit, album: Path, tiny_folder: Path) -> None:
    try:
        (album / "x.csv").symlink_to("x.csv")
    except OSError:
        pytest.skip("this user may not make links")
    result = qsit("score", album / "a.png", "--out", album / "x.csv", "--model", tiny_folder)
    assert result.exit_code == 2
    assert "cannot write" in result.stderr


def test_the_pixel_limit_can_be_lowered_and_its_message_names_the_option(qsit, album: Path, tiny_folder: Path) -> None:
    for command in ("score", "explain", "ask", "compare"):
        more = ("-q", "Is it blurry?") if command == "ask" else ()
        photos = (album / "a.png", album / "c.png")
        result = qsit(command, *photos, *more, "--max-pixels", 1600, "--model", tiny_folder)
        assert result.exit_code == 1
        assert "64x48 is over the limit of 1,600 pixels" in result.stderr
        assert "--max-pixels" in result.stderr
    assert qsit("score", album / "a.png", "--max-pixels", 0, "--model", tiny_folder).exit_code == 2


def test_what_a_folder_holds_besides_is_counted_on_stderr(qsit, album: Path, tiny_folder: Path) -> None:
    for name in ("a.cr2", "b.cr2", "notes.txt"):
        (album / name).touch()
    result = qsit("score", album, "--model", tiny_folder)
    assert result.stderr.splitlines()[0] == "2 files left out (.cr2)"
