"""A full disk, places that may not be written, files that vanish in the middle, clocks that jump, odd names."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from qsit_plugin.bulk.export import export
from qsit_plugin.bulk.inputs.sources import sources
from qsit_plugin.bulk.scoring import score_into
from qsit_plugin.bulk.store import Store, StoreError
from tests.bulk.brightness import ABOUT, Brightness, score
from tests.bulk.conftest import OLD, picture
from tests.bulk.test_kill import ROOT, check_whole, start
from tests.bulk.test_store import rows

posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limits and names")


def pictures(folder: Path, count: int) -> Path:
    for number in range(count):
        picture(folder / f"{number}.png", number)
    return folder


LIMITED = """
import resource, runpy, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, resource.RLIM_INFINITY))
sys.argv = ["brightness", *sys.argv[1:]]
runpy.run_module("tests.bulk.brightness", run_name="__main__")
"""

SMALL_DISK = """
set -e
mount -t tmpfs -o size=150k none "$1"
if "$0" -m tests.bulk.brightness "$1/s.sqlite" "$2"; then echo "the disk was not full" >&2; exit 9; fi
mount -o remount,size=20m "$1"
"$0" -m tests.bulk.brightness "$1/s.sqlite" "$2"
cp "$1"/s.sqlite* "$3"
"""


def run(*command: object) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, "PYTHONPATH": path}
    return subprocess.run([str(part) for part in command], cwd=ROOT, env=environment, capture_output=True, text=True)


@posix
def test_a_file_that_may_not_grow_ends_the_run_with_a_cure_and_the_next_one_goes_on(tmp_path: Path) -> None:
    album, store = pictures(tmp_path / "album", 50), tmp_path / "s.sqlite"
    score(store, album)
    pictures(album, 1500)
    ended = run(sys.executable, "-c", LIMITED, store, album)
    assert ended.returncode == 1
    assert "StoreError" in ended.stderr and "free some space" in ended.stderr
    counts, scorer = score(store, album)
    assert counts.done == 1500 and counts.known >= 50, "what was committed before is kept"
    check_whole(store, 1500, 1500)


def test_a_disk_that_is_full_ends_the_run_with_a_cure_and_the_next_one_goes_on(tmp_path: Path) -> None:
    if shutil.which("unshare") is None or run("unshare", "-rm", "true").returncode:
        pytest.skip("no small disk can be mounted here")
    album = pictures(tmp_path / "album", 1500)
    (tmp_path / "disk").mkdir()
    ended = run("unshare", "-rm", "sh", "-c", SMALL_DISK, sys.executable, tmp_path / "disk", album, tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert "database or disk is full; free some space and run again; what was written is whole" in ended.stderr
    check_whole(tmp_path / "s.sqlite", 1500, 1500)


@contextmanager
def without_rights() -> Iterator[Path]:
    """A folder of its own, as a user who may not write what is read-only; root may write everything."""
    if sys.platform == "win32":
        pytest.skip("Windows has no folders that are read-only for their owner")
    place, user = Path(tempfile.mkdtemp()), os.geteuid()
    try:
        if user == 0:
            os.chown(place, 65534, 65534)
            os.seteuid(65534)
        yield place
    finally:
        os.seteuid(user)
        for path in place.rglob("*"):
            path.chmod(0o755)
        shutil.rmtree(place)


def test_a_read_only_store_is_exported_and_not_written(album: Path) -> None:
    with without_rights() as place:
        pictures(place / "album", 3)
        (place / "locked").mkdir()
        score(place / "locked" / "s.sqlite", place / "album")
        (place / "locked" / "s.sqlite").chmod(0o444)
        (place / "locked").chmod(0o555)
        assert export(place / "locked" / "s.sqlite", place / "x.csv") == (3, 0)
        with pytest.raises(StoreError, match="writable"):
            score(place / "locked" / "s.sqlite", place / "album")
        with pytest.raises(StoreError, match="writable"):
            score(place / "locked" / "new.sqlite", place / "album")
        assert os.listdir(place / "locked") == ["s.sqlite"]


def test_images_and_folders_that_may_not_be_read_are_said_and_the_others_scored() -> None:
    with without_rights() as place:
        pictures(place / "album", 3)
        pictures(place / "album" / "closed", 1)
        (place / "album" / "0.png").chmod(0)
        (place / "album" / "closed").chmod(0)
        counts, _ = score(place / "s.sqlite", place / "album")
        assert (counts.scored, counts.failed) == (2, 2)
        assert "permission" in rows(place / "s.sqlite")["0.png"]["error"]["message"]


def test_a_folder_that_vanishes_in_the_middle_costs_its_images_only(tmp_path: Path) -> None:
    for name in "abc":
        pictures(tmp_path / "album" / name, 2)
    gone: list[Path] = []

    def vanishing() -> Iterator:
        for source in sources([str(tmp_path / "album")]):
            yield source
            if not gone:  # the folder that is being listed, and one that is not yet
                gone.append(Path(source.path).parent)
                gone.append(next(one for one in (tmp_path / "album").iterdir() if one not in gone))
                for folder in gone:
                    shutil.rmtree(folder)

    with Store(tmp_path / "s.sqlite", ABOUT) as store:
        counts = score_into(store, Brightness(), vanishing())
    there = {row["path"] for row in rows(tmp_path / "s.sqlite").values() if "score" in row}
    assert there >= {str(path) for path in (tmp_path / "album").rglob("*.png")} and len(there) >= 2
    assert counts.failed >= 1, "what was found and is gone is said"


def test_a_shard_that_vanishes_in_the_middle_is_said(album: Path, tmp_path: Path) -> None:
    from tests.bulk.test_sources import shard

    path = shard(tmp_path / "s.tar", album)

    def vanishing() -> Iterator:
        for number, source in enumerate(sources([str(path), str(album)])):
            if number == 1:
                path.unlink()
            yield source

    with Store(tmp_path / "s.sqlite", ABOUT) as store:
        counts = score_into(store, Brightness(), vanishing())
    assert counts.failed >= 3 and {"a.png", "b.png", "c.png"} <= set(rows(tmp_path / "s.sqlite", existing=True))


def test_a_store_that_is_taken_away_ends_the_run(album: Path, tmp_path: Path) -> None:
    """SQLite would go on writing into a file that nobody can find."""
    if sys.platform == "win32":
        pytest.skip("Windows removes no file that is open")

    def removing() -> Iterator:
        for source in sources([str(album)]):
            (tmp_path / "s.sqlite").unlink(missing_ok=True)
            yield source

    with pytest.raises(StoreError, match=r"is gone.*run again"), Store(tmp_path / "s.sqlite", ABOUT) as store:
        score_into(store, Brightness(), removing())


@pytest.mark.parametrize("seconds", [0, -5_000_000_000, 1, 4_000_000_000, 10_000_000_000], ids=str)
def test_times_of_change_that_no_clock_shows_lead_to_no_wrong_score(album: Path, tmp_path: Path, seconds: int) -> None:
    (album / "bad.png").unlink()
    try:
        os.utime(album / "a.png", (seconds, seconds))
    except OSError:
        pytest.skip("the file system has no such time")
    assert score(tmp_path / "s.sqlite", album)[0].scored == 3
    assert score(tmp_path / "s.sqlite", album)[0].known == 3
    picture(album / "a.png", 30)
    os.utime(album / "a.png", (seconds, seconds))
    (album / "a.png").write_bytes((album / "a.png").read_bytes() + b" longer")
    os.utime(album / "a.png", (seconds, seconds))
    assert score(tmp_path / "s.sqlite", album)[0].scored == 1


@pytest.mark.parametrize("jump", [-10 * 365 * 86400, 10 * 365 * 86400], ids=["back", "ahead"])
def test_a_clock_that_jumps_in_the_middle_loses_and_doubles_no_row(
    album: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jump: int
) -> None:
    (album / "bad.png").unlink()
    clock = time.time_ns
    calls = iter(range(1000))
    monkeypatch.setattr(time, "time_ns", lambda: clock() + (next(calls) % 2) * jump * 10**9)
    assert score(tmp_path / "s.sqlite", album)[0].scored == 3
    counts, scorer = score(tmp_path / "s.sqlite", album)
    assert (counts.known, scorer.seen) == (3, 0)
    check_whole(tmp_path / "s.sqlite", 3, 3)


@posix
def test_odd_names_in_shards_are_rows(album: Path, tmp_path: Path) -> None:
    names = ["a\nb.png", os.fsdecode(b"caf\xe9.png"), "x" * 300 + ".png", "../up.png", "ü€.png"]
    with tarfile.open(tmp_path / "s.tar", "w", format=tarfile.PAX_FORMAT) as file:
        for seed, name in enumerate(names):
            content = picture(tmp_path / "one.png", seed).read_bytes()
            member = tarfile.TarInfo(name)
            member.size = len(content)
            file.addfile(member, io.BytesIO(content))
    os.utime(tmp_path / "s.tar", (OLD, OLD))
    assert score(tmp_path / "s.sqlite", tmp_path / "s.tar")[0].scored == len(names)
    assert score(tmp_path / "s.sqlite", tmp_path / "s.tar")[0].known == len(names)
    found = {row["path"] for row in rows(tmp_path / "s.sqlite", existing=True).values()}
    assert found == {f"{tmp_path / 's.tar'}/{name}" for name in names}


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="only Linux has names that are no UTF-8")
@pytest.mark.parametrize("kind", ["sqlite", "csv", "jsonl"])
def test_the_command_says_of_a_name_that_is_no_utf8_what_is_wrong_with_the_image(tmp_path: Path, kind: str) -> None:
    (tmp_path / os.fsdecode(b"caf\xe9\nau lait.png")).write_bytes(b"no picture")
    picture(tmp_path / "a.png", 1)
    said = run(sys.executable, "-m", "qsit_plugin.cli", "score", tmp_path, "--out", tmp_path / f"s.{kind}")
    assert said.returncode == 1 and "Traceback" not in said.stderr
    (line,) = (line for line in said.stderr.splitlines() if "not an image" in line)
    assert "caf\\udce9" in line and "au lait.png" in line


def test_two_processes_of_which_one_is_killed_lose_and_double_no_row(tmp_path: Path) -> None:
    if sys.platform == "win32":
        pytest.skip("needs SIGKILL")
    album, store = pictures(tmp_path / "album", 300), tmp_path / "s.sqlite"
    killed, other = start(store, album, 0.01), start(store, album, 0.01)
    while killed.poll() is None and not store.exists():
        time.sleep(0.01)
    time.sleep(1.5)
    killed.kill()
    assert b"Traceback" not in killed.communicate()[1]
    assert other.communicate()[1] == b"" and other.returncode == 0
    check_whole(store, 300, 300)
