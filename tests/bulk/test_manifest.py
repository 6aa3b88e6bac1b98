"""A manifest: what it does can be taken back, whatever happened in between."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from qsit_plugin.bulk.file_steps import file_step, text_step
from qsit_plugin.bulk.manifest import ManifestError, carry_out, plan, undo

ROOT = Path(__file__).resolve().parents[2]
posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such names, signals or free links")


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Ten files, two of them in a folder inside, each with other content."""
    folder = tmp_path / "album"
    (folder / "inner").mkdir(parents=True)
    for number in range(10):
        (folder / ("inner" if number > 7 else ".") / f"{number}.jpg").write_bytes(bytes([number]) * (number + 1))
    return folder


def state(folder: Path) -> dict[bytes, bytes]:
    """Every file and folder below, with its content."""
    return {
        os.fsencode(path.relative_to(folder)): path.read_bytes() if path.is_file() else b"/"
        for path in folder.rglob("*")
        if path.name != "m.jsonl"
    }


def planned(album: Path, do: str = "move") -> Path:
    """A manifest, beside the album, that brings its files to ``good/``, and writes a sidecar beside each."""
    steps = []
    for source in sorted(path for path in album.rglob("*") if path.is_file()):
        target = album.parent / "good" / source.relative_to(album)
        steps += [file_step(do, source, target), text_step(f"{target}.xmp", f"for {source.stat().st_size}\n")]
    assert plan(album.parent / "m.jsonl", steps, within=[album, album.parent / "good"]) == len(steps)
    return album.parent / "m.jsonl"


def errors(outcomes) -> list[str | None]:
    return [outcome.error for outcome in outcomes if outcome.error is not None]


@pytest.mark.parametrize("do", ["move", "copy", pytest.param("link", marks=posix)])
def test_what_was_carried_out_is_undone_to_the_last_file_and_folder(files: Path, tmp_path: Path, do: str) -> None:
    before = state(tmp_path)
    manifest = planned(files, do)
    assert state(tmp_path) == before, "a plan touches nothing"
    assert all(outcome.done for outcome in carry_out(manifest))
    moved = state(tmp_path / "good")
    assert len(moved) == 21 and moved[b"3.jpg"] == b"\3" * 4 and moved[b"3.jpg.xmp"] == b"for 4\n"
    assert len([path for path in files.rglob("*") if path.is_file()]) == (0 if do == "move" else 10)
    assert (tmp_path / "good" / "3.jpg").is_symlink() == (do == "link")
    assert all(outcome.done for outcome in undo(manifest))
    assert state(tmp_path) == before
    assert not any(outcome.done or outcome.error for outcome in undo(manifest)), "a second time there is nothing"


KILLED = """import os, signal, sys
from qsit_plugin.bulk import file_steps
from qsit_plugin.bulk.manifest import carry_out
name, calls = sys.argv[2], int(sys.argv[3])
real = getattr(os, name)
def counted(*arguments, **options):
    global calls
    calls -= 1
    if calls < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*arguments, **options)
setattr(os, name, counted)
if sys.argv[4] == "far":
    def far(source, target, rename=file_steps._rename):
        if "qsit-part" in source:
            return rename(source, target)
        raise OSError(18, "Invalid cross-device link")
    file_steps._rename = far
for outcome in carry_out(sys.argv[1]):
    assert not outcome.error, outcome
"""
"""Carries out a manifest and is killed by SIGKILL at the n-th call of a function of the system's; "far": as to another
disk, so that a move is a copy, whose original is removed."""


@posix
@pytest.mark.parametrize("go_on", [False, True])
def test_a_run_that_is_killed_within_or_between_files_is_undone_or_gone_on_with(tmp_path, files, go_on) -> None:
    chance, before = random.Random(3), state(tmp_path)
    places = [("link", 0), ("link", 7), ("unlink", 0), ("unlink", 9), ("symlink", 4), ("fsync", 0), ("stat", 5)]
    for name, calls in places:
        do = "link" if name == "symlink" else "move" if name in ("unlink", "fsync") else chance.choice(["move", "copy"])
        manifest = planned(files, do)
        far = "far" if name == "fsync" or calls == 9 else "near"
        command = [sys.executable, "-c", KILLED, str(manifest), name, str(calls), far]
        path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        killed = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True)
        assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
        if go_on:
            assert errors(carry_out(manifest)) == []
            assert len(state(tmp_path / "good")) == 21
        assert errors(undo(manifest)) == []
        assert state(tmp_path) == before, (name, calls, do, far)
        manifest.unlink()


@posix
def test_names_with_line_feeds_and_names_that_are_no_utf8_come_back(tmp_path: Path) -> None:
    album = tmp_path / "album"
    album.mkdir()
    names = [b"a\nb.jpg", b"c\r\n.jpg", b'"\\u0041".jpg', "\u2028.jpg".encode(), b" .jpg"]
    names += [b"caf\xe9.jpg"] if sys.platform == "linux" else []
    for name in names:
        (album / os.fsdecode(name)).write_bytes(name)
    before = state(tmp_path)
    manifest = planned(album)
    assert errors(carry_out(manifest)) == [] and list(album.iterdir()) == []
    assert (tmp_path / "good" / os.fsdecode(names[-1])).read_bytes() == names[-1]
    assert errors(undo(manifest)) == [] and state(tmp_path) == before


def test_undo_leaves_what_changed_since_and_overwrites_nothing(files: Path, tmp_path: Path) -> None:
    manifest = planned(files)
    list(carry_out(manifest))
    good = tmp_path / "good"
    (good / "1.jpg").write_bytes(b"edited")
    (good / "2.jpg.xmp").write_text("rated by hand")
    (files / "3.jpg").write_bytes(b"a new photo of that name")
    (good / "4.jpg").unlink()
    said = errors(undo(manifest))
    assert [words.split(":")[0] for words in said] == [
        "changed since it was moved, and left here",
        "changed since it was made, and kept",
        "left here, since its old place is taken",
        "gone",
    ]
    assert (good / "1.jpg").read_bytes() == b"edited" and not (files / "1.jpg").exists()
    assert (files / "3.jpg").read_bytes() == b"a new photo of that name" and (good / "3.jpg").read_bytes() == b"\3" * 4
    assert (good / "2.jpg.xmp").read_text() == "rated by hand"
    assert (files / "0.jpg").read_bytes() == b"\0" and (files / "inner" / "9.jpg").exists()


def test_a_copy_is_kept_where_its_original_is_gone(files: Path, tmp_path: Path) -> None:
    manifest = planned(files, "copy")
    list(carry_out(manifest))
    (files / "1.jpg").unlink()
    assert len(errors(undo(manifest))) == 1
    assert (tmp_path / "good" / "1.jpg").read_bytes() == b"\1\1" and not (tmp_path / "good" / "2.jpg").exists()


def test_a_file_that_changes_between_plan_and_move_stays_where_it_is(files: Path, tmp_path: Path) -> None:
    manifest = planned(files)
    (files / "1.jpg").write_bytes(b"edited")
    assert errors(carry_out(manifest)) == ["changed since it was planned, and left where it is"]
    assert (files / "1.jpg").read_bytes() == b"edited" and not (tmp_path / "good" / "1.jpg").exists()


def test_a_target_that_appears_between_plan_and_move_is_not_overwritten(files: Path, tmp_path: Path) -> None:
    manifest = planned(files)
    (tmp_path / "good").mkdir()
    (tmp_path / "good" / "1.jpg").write_bytes(b"another's")
    assert len(errors(carry_out(manifest))) == 1
    assert (tmp_path / "good" / "1.jpg").read_bytes() == b"another's" and (files / "1.jpg").exists()
    list(undo(manifest))
    assert (tmp_path / "good" / "1.jpg").read_bytes() == b"another's" and (files / "1.jpg").read_bytes() == b"\1\1"


def test_a_plan_that_cannot_be_done_is_refused_as_a_whole(files: Path, tmp_path: Path) -> None:
    inside, one = [files, tmp_path / "good"], files / "1.jpg"
    (files / "there.jpg").touch()
    cases = {
        "is there already": [file_step("copy", one, files / "there.jpg")],
        "comes twice": [file_step("copy", one, tmp_path / "good" / "x"), file_step("copy", one, tmp_path / "good/x")],
        "does not lie in": [file_step("move", one, tmp_path / "elsewhere" / "1.jpg")],
        "does not lie in .*": [file_step("move", one, tmp_path / "good" / ".." / ".." / "1.jpg")],
        "no file": [],
        "and 4 more": [file_step("copy", one, tmp_path / "elsewhere" / str(number)) for number in range(9)],
    }
    for words, steps in cases.items():
        with pytest.raises(ManifestError, match=words):
            plan(tmp_path / "m.jsonl", steps, within=inside)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["album"]
    (tmp_path / "m.jsonl").write_text("mine")
    with pytest.raises(ManifestError, match="another name"):
        plan(tmp_path / "m.jsonl", [file_step("copy", one, tmp_path / "good" / "x")], within=inside)


@posix
def test_a_link_is_not_moved_and_a_folder_that_is_a_link_does_not_lead_out(files: Path, tmp_path: Path) -> None:
    (files / "link.jpg").symlink_to("1.jpg")
    with pytest.raises(ManifestError, match="copy it"):
        plan(tmp_path / "m.jsonl", [file_step("move", files / "link.jpg", files / "x.jpg")], within=[files])
    (tmp_path / "out").mkdir()
    (files / "way out").symlink_to(tmp_path / "out")
    with pytest.raises(ManifestError, match="does not lie in"):
        plan(tmp_path / "m.jsonl", [file_step("copy", files / "1.jpg", files / "way out" / "x")], within=[files])


@pytest.mark.parametrize(
    "line",
    [
        "no json", "[]", "{}", "[" * 100_000, '{"qsit_manifest": 2, "within": []}',
        '{"do": "move"}', '{"folder": 3}', '{"folder": "relative"}',
    ],
)  # fmt: skip
def test_a_file_that_is_no_manifest_is_refused_before_any_step(files: Path, tmp_path: Path, line: str) -> None:
    manifest = planned(files)
    list(carry_out(manifest))
    moved = state(tmp_path)
    rows = manifest.read_text().splitlines()
    bad = [line] if "qsit_manifest" in line else [*rows, line]
    manifest.write_text("\n".join(bad) + "\n")
    with pytest.raises(ManifestError, match="m.jsonl"):
        list(undo(manifest))
    assert state(tmp_path) == moved


def test_a_manifest_from_elsewhere_cannot_touch_files_outside_the_given_folders(files: Path, tmp_path: Path) -> None:
    manifest = planned(files)
    list(carry_out(manifest))
    with pytest.raises(ManifestError, match="leads out"):
        list(undo(manifest, within=[files]))
    rows = [json.loads(line) for line in manifest.read_text().splitlines()]
    rows[-1]["target"] = str(tmp_path / "elsewhere")
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(ManifestError, match="leads out"):
        list(undo(manifest))
