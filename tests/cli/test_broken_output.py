"""What is left in --out and said on stderr when the disk is full, a second run writes, or the run is killed."""

from __future__ import annotations

import csv
import json
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest

from qsit_plugin.row_file import RowFile
from tests.cli.test_process import start

IN_TURN = """
import json, os, sys
{before}
from qsit_plugin.cli import main
for arguments in json.loads(sys.argv[1]):
    {each}
    try:
        main(arguments)
    except SystemExit as end:
        print("status", end.code, file=sys.stderr, flush=True)
"""
"""Several commands in one process that is short of room, since importing torch takes longer than they do."""

SHORT_OF_ROOM = """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
"""
FULL_STDOUT = "sys.stdout.flush(); os.dup2(os.open('/dev/full', os.O_WRONLY), 1)"


def in_turn(commands: list[list], before: str = "", each: str = "") -> list[tuple[int, list[str]]]:
    """Status and lines on stderr of each command, without the line that names the model."""
    listed = json.dumps([[str(part) for part in command] for command in commands])
    with start(listed, code=IN_TURN.format(before=before, each=each)) as process:
        _, err = process.communicate(timeout=300)
    results: list[tuple[int, list[str]]] = []
    lines: list[str] = []
    for line in err.splitlines():
        if line.startswith("status "):
            results.append((int(line.split()[1]), lines))
            lines = []
        elif not line.startswith("tiny on "):
            lines.append(line)
    assert lines == [], "nothing is said after the last command, by the interpreter for example"
    return results


def copies(album: Path, count: int) -> list[str]:
    return [str(shutil.copy(album / "a.png", album / f"copy{i:04}.png")) for i in range(count)]


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on the size of files")
def test_a_full_disk_leaves_whole_rows_in_every_format_and_one_sentence_that_counts_them(
    album: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    photos = copies(album, 40)
    begin = {"score": ["score", *photos], "explain": ["explain", *photos, "--max-new-tokens", 4]}
    pairs = [("score", "jsonl"), ("score", "csv"), ("score", "txt"), ("explain", "jsonl"), ("explain", "txt")]
    outs = [tmp_path / f"{command}.{kind}" for command, kind in pairs]
    commands = [
        [*begin[command], "--model", tiny_folder, "--out", out] for (command, _), out in zip(pairs, outs, strict=True)
    ]
    results = in_turn(commands, before=SHORT_OF_ROOM)
    assert len(results) == len(pairs)
    for (command, kind), out, (status, lines) in zip(pairs, outs, results, strict=True):
        text = out.read_text(encoding="utf-8")
        assert text.endswith("\n") and 0 < len(text) <= 1000
        if kind == "jsonl":
            named = [json.loads(row)["path"] for row in text.splitlines()]
        elif kind == "csv":
            named = [row["path"] for row in csv.DictReader(text.splitlines()) if float(row["score"]) >= 0]
        else:
            named = [line.split()[-1] for line in text.splitlines() if line.endswith(".png")]
        assert 0 < len(named) < 40
        assert named == photos[: len(named)], (command, kind)
        said = f"qsit: File too large: {len(named)} of 40 images are written and whole in {out}"
        assert (status, lines) == (1, [said]), (command, kind)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_stdout_or_out_is_one_sentence_in_every_command(album: Path, tiny_folder: Path) -> None:
    photos, model = (album / "a.png", album / "c.png"), ("--model", tiny_folder)
    out = ("--out", "/dev/full", "--format", "jsonl")
    results = in_turn(
        [
            ["score", *photos, *model],
            ["compare", *photos, *model],
            ["explain", *photos, *model, "--max-new-tokens", 2],
            ["score", *photos, *model, *out],
            ["compare", *photos, *model, *out],
        ],
        each=FULL_STDOUT,
    )
    counted = "qsit: stdout cannot be written, the disk is full: 0 of 2 images are written; a part of a row may follow"
    assert results == [
        (1, [counted]),
        (1, ["qsit: the disk is full: stdout is cut short"]),
        (1, [counted]),
        (1, ["qsit: the disk is full: 0 of 2 images are written and whole in /dev/full"]),
        (1, ["qsit: cannot go on writing /dev/full: the disk is full; the rows before are whole"]),
    ]


def test_a_second_run_on_the_same_file_is_refused_before_its_model_is_loaded(qsit, album: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.jsonl"
    with RowFile(out) as first:
        first.write('{"path": "a.png"}\n')
        first.flush()
        result = qsit("score", album / "a.png", "--out", out, "--model", tmp_path / "no-such-model")
    assert result.exit_code == 2
    assert f"{out} is being written by another run" in result.stderr
    assert out.read_text(encoding="utf-8") == '{"path": "a.png"}\n'


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_a_run_that_is_killed_leaves_whole_rows_and_no_lock(album: Path, tiny_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.jsonl"
    photos = copies(album, 2000)
    with start("score", *photos, "--out", out, "--model", tiny_folder) as process:
        while process.poll() is None and (not out.exists() or out.stat().st_size < 3000):
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    rows = out.read_text(encoding="utf-8")
    assert rows.endswith("\n")
    paths = [json.loads(row)["path"] for row in rows.splitlines()]
    assert 3 < len(paths) < 2000
    assert paths == photos[: len(paths)]
    with RowFile(out):
        pass
