"""``qsit score --resume``: csv and jsonl that go on where an earlier run stopped."""

from __future__ import annotations

import csv
import json
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest

from qsit_plugin.row_file import RowFile
from tests.cli.test_broken_output import SHORT_OF_ROOM, in_turn
from tests.cli.test_process import start
from tests.tiny import tiny_checkpoint

KINDS = ("jsonl", "csv")


@pytest.fixture(params=KINDS)
def out(request, tmp_path: Path) -> Path:
    return tmp_path / f"scores.{request.param}"


def rows(path: Path) -> list[dict]:
    text = path.read_text("utf-8")
    assert text.endswith("\n")
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in text.split("\n")[:-1]]
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def names(path: Path) -> list[str]:
    return [Path(row["path"]).name for row in rows(path)]


def same(path: Path, whole: list[dict]) -> bool:
    """The same rows, with scores equal but for the order of sums in another batch."""
    found = rows(path)
    assert [row["path"] for row in found] == [row["path"] for row in whole]
    scores = ([float(row["score"]) for row in some] for some in (found, whole))
    return next(scores) == pytest.approx(next(scores), rel=1e-5)


def copies(album: Path, count: int) -> list[Path]:
    return [shutil.copy(album / "a.png", album / f"copy{number:04}.png") for number in range(count)]


def test_a_second_run_scores_only_what_lacks_and_tries_errors_again(qsit, album, tiny_folder, out) -> None:
    options = ("--out", out, "--resume", "--model", tiny_folder)
    first = qsit("score", album, *options)
    assert first.exit_code == 1 and names(out) == ["a.png", "b.png", "c.png"]
    begun = out.read_bytes()
    (album / "d.png").write_bytes((album / "a.png").read_bytes())
    again = qsit("score", album, *options)
    assert again.exit_code == 1
    assert f"{out}: 2 of 4 images are scored already" in again.stderr
    assert names(out) == ["a.png", "c.png", "b.png", "d.png"], "a row each; that of the error is a new one"
    shutil.copy(album / "a.png", album / "b.png")
    assert qsit("score", album, *options).exit_code == 0
    assert names(out) == ["a.png", "c.png", "d.png", "b.png"]
    assert all(line in begun for line in out.read_bytes().splitlines()[:2]), "rows that are there stay as they are"
    end = out.read_bytes()
    whole = qsit("score", album, *options)
    assert whole.exit_code == 0 and out.read_bytes() == end


def test_without_resume_the_file_is_written_anew(qsit, album, tiny_folder, out) -> None:
    for _ in range(2):
        qsit("score", album / "a.png", "--out", out, "--model", tiny_folder)
    assert names(out) == ["a.png"]


@pytest.mark.parametrize("cut", [1, 7, 40, 150])
def test_a_row_that_was_cut_off_is_done_again(qsit, album, tiny_folder, out, cut) -> None:
    photos = copies(album, 3)
    options = ("--out", out, "--resume", "--model", tiny_folder)
    qsit("score", *photos, *options)
    whole = rows(out)
    out.write_bytes(out.read_bytes()[:-cut])
    said = qsit("score", *photos, *options)
    assert said.exit_code == 0 and "2 of 3 images" in said.stderr
    assert same(out, whole)


def test_a_file_that_was_cut_off_anywhere_is_completed(qsit, album, tiny_folder, out) -> None:
    if sys.platform == "win32":
        pytest.skip("Windows has no such names")
    photos = [shutil.copy(album / "a.png", album / name) for name in ("line\nend.png", '"quoted".png', "a,b.png")]
    options = ("--out", out, "--resume", "--model", tiny_folder)
    qsit("score", *photos, *options)
    whole, content = rows(out), out.read_bytes()
    for end in sorted({*range(0, len(content), 311), content.index(b"end.png") if out.suffix == ".csv" else 1}):
        out.write_bytes(content[:end])
        assert qsit("score", *photos, *options).exit_code == 0
        assert same(out, whole), end


def test_an_image_that_is_given_twice_has_two_rows(qsit, album, tiny_folder, out) -> None:
    options = ("--out", out, "--resume", "--model", tiny_folder)
    qsit("score", album / "a.png", *options)
    qsit("score", album / "a.png", album / "a.png", *options)
    qsit("score", album / "a.png", album / "a.png", *options)
    assert names(out) == ["a.png", "a.png"]


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="only Linux has names that are no UTF-8")
def test_names_that_are_no_utf8_are_not_scored_again(qsit, album, tiny_folder, out) -> None:
    shutil.copy(album / "a.png", os.fsencode(album) + b"/caf\xe9.png")
    (album / "b.png").unlink()
    options = ("--out", out, "--resume", "--model", tiny_folder)
    qsit("score", album, *options)
    before = out.read_bytes()
    assert "3 of 3 images" in qsit("score", album, *options).stderr
    assert out.read_bytes() == before


@pytest.mark.parametrize("other", ["model", "profile", "rotation", "limit"])
def test_scores_of_another_recipe_are_refused_and_the_file_stays(
    qsit, album, tiny_folder, out, tmp_path, other
) -> None:
    qsit("score", album / "a.png", "--out", out, "--model", tiny_folder)
    before = out.read_bytes()
    profile = tmp_path / "other.json"
    profile.write_text((tiny_folder / "qsit.json").read_text("utf-8").replace("0.75", "0.9"), "utf-8")
    changed = {
        "model": ("--model", tiny_checkpoint(tmp_path / "tiny", official=False, seed=1)),
        "profile": ("--model", tiny_folder, "--profile", profile),
        "rotation": ("--model", tiny_folder, "--exif-rotation"),
        "limit": ("--model", tiny_folder, "--max-tiles", 1),
    }[other]
    said = qsit("score", album / "c.png", "--out", out, "--resume", *changed)
    assert said.exit_code == 2
    assert f"{out} holds scores of the weights" in said.stderr and "give another --out, or leave out" in said.stderr
    assert out.read_bytes() == before


@pytest.mark.parametrize("content", ["a letter to a friend", "path,score\na.png,1\n", '{"name": "x"}\n', "[1, 2]\n"])
def test_a_file_of_something_else_is_refused_and_stays(qsit, album, tiny_folder, out, content) -> None:
    out.write_text(content)
    said = qsit("score", album / "a.png", "--out", out, "--resume", "--model", tiny_folder)
    assert said.exit_code == 2 and "to start the file anew" in said.stderr
    assert out.read_text() == content


def test_a_damaged_row_in_the_middle_is_refused_and_the_file_stays(qsit, album, tiny_folder, out) -> None:
    qsit("score", *copies(album, 2), "--out", out, "--model", tiny_folder)
    lines = out.read_bytes().splitlines(keepends=True)
    out.write_bytes(b"".join([*lines[:-1], lines[-1][:50] + b"\n", lines[-1]]))
    before = out.read_bytes()
    said = qsit("score", album / "c.png", "--out", out, "--resume", "--model", tiny_folder)
    assert said.exit_code == 2 and f"row {len(lines)} is none of qsit score" in said.stderr
    assert out.read_bytes() == before


def test_a_file_that_another_run_writes_is_refused(qsit, album, tiny_folder, out) -> None:
    with RowFile(out):
        said = qsit("score", album / "a.png", "--out", out, "--resume", "--model", tiny_folder)
    assert said.exit_code == 2 and "is being written by another run" in said.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on the size of files")
def test_a_disk_without_room_for_the_file_without_its_errors_leaves_it_as_it_was(
    qsit, album, tiny_folder, tmp_path
) -> None:
    out = tmp_path / "x.jsonl"
    command = ("score", album, "--out", out, "--resume", "--model", tiny_folder)
    qsit(*command)
    before = out.read_bytes()
    assert len(before) > 1000
    ((status, lines),) = in_turn([list(command)], before=SHORT_OF_ROOM)
    assert status == 2 and lines == [f"qsit: cannot go on with {out}: File too large; it is as it was"]
    assert out.read_bytes() == before and not list(tmp_path.glob("*.new*"))


@pytest.mark.parametrize("arguments", [("--resume",), ("--resume", "--out", "x.txt"), ("--resume", "-f", "csv")])
def test_without_a_csv_or_jsonl_file_there_is_nothing_to_resume(qsit, album, arguments) -> None:
    said = qsit("score", album / "a.png", *arguments, "--model", "no-such-model")
    assert said.exit_code == 2 and "--resume goes with --out FILE.csv or FILE.jsonl" in said.stderr


def kill_and_go_on(out: Path, photos: list[Path], model: Path, *, kills: int, seed: int) -> None:
    """SIGKILL after a random number of rows, so often, then one whole run."""
    chance = random.Random(seed)
    command = ("score", photos[0].parent, "--out", out, "--resume", "--model", model)
    for _ in range(kills):
        begun = out.stat().st_size if out.exists() else 0
        with start(*command) as process:
            while process.poll() is None and (not out.exists() or out.stat().st_size <= begun):
                time.sleep(0.01)
            time.sleep(chance.random() * 0.2)
            process.send_signal(signal.SIGKILL)
            assert "Traceback" not in process.communicate()[1]
        assert out.stat().st_size >= begun, "a row is gone"
    with start(*command) as process:
        assert "Traceback" not in process.communicate()[1]
    assert process.returncode == 0
    assert sorted(row["path"] for row in rows(out)) == sorted(map(str, photos))


def many(album: Path, count: int) -> list[Path]:
    (album / "many").mkdir()
    return [Path(shutil.copy(album / "a.png", album / "many" / f"{number:04}.png")) for number in range(count)]


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_a_run_that_is_killed_goes_on_and_loses_and_doubles_no_row(album, tiny_folder, tmp_path) -> None:
    kill_and_go_on(tmp_path / "x.jsonl", many(album, 600), tiny_folder, kills=1, seed=1)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_a_run_that_is_killed_10_times_loses_and_doubles_no_row(album, tiny_folder, out) -> None:
    kill_and_go_on(out, many(album, 1500), tiny_folder, kills=10, seed=2)
