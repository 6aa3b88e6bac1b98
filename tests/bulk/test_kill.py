"""Processes that are killed, and several at once: no row is lost or doubled."""

from __future__ import annotations

import os
import random
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from qsit_plugin.bulk.export import export
from tests.bulk.brightness import score
from tests.bulk.conftest import picture

ROOT = Path(__file__).resolve().parents[2]


def start(store: Path, folder: Path, seconds: float = 0.0) -> subprocess.Popen:
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    command = [sys.executable, "-m", "tests.bulk.brightness", str(store), str(folder), str(seconds)]
    return subprocess.Popen(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": path}, stderr=subprocess.PIPE)


def results(store: Path) -> int:
    """Rows that are committed; -1 where there are no tables yet."""
    if not store.exists():
        return -1
    file = sqlite3.connect(store, timeout=60)
    try:
        return file.execute("SELECT count(*) FROM result").fetchone()[0]
    except sqlite3.OperationalError:
        return -1
    finally:
        file.close()


def check_whole(store: Path, images: int, contents: int) -> None:
    """Every image has its row, every content its one result, and the file is sound."""
    file = sqlite3.connect(store)
    assert file.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert file.execute("SELECT count(*), count(DISTINCT path) FROM image").fetchone() == (images, images)
    assert file.execute("SELECT count(*), count(DISTINCT sha256) FROM result").fetchone() == (contents, contents)
    assert file.execute("SELECT count(*) FROM result WHERE score IS NULL").fetchone() == (0,)
    file.close()
    assert export(store, store.with_suffix(".csv")) == (images, 0)


def kill_and_go_on(tmp_path: Path, *, kills: int, images: int, seed: int) -> None:
    """SIGKILL after a random number of commits or at a random moment of the start, so often, then one whole run."""
    chance = random.Random(seed)
    for number in range(images):
        picture(tmp_path / "album" / f"{number // 100}" / f"{number}.png", number * 9 // 10)  # some are copies
    store, contents = tmp_path / "s.sqlite", len({number * 9 // 10 for number in range(images)})
    for _ in range(kills):
        before, early = results(store), chance.random() < 0.3
        process = start(store, tmp_path / "album", 0.01)
        while process.poll() is None and results(store) <= max(before, 0) and not early:
            time.sleep(0.01)
        time.sleep(chance.random() * 0.3)
        process.kill()
        assert b"Traceback" not in process.communicate()[1]
        assert results(store) >= before, "a committed row is gone"
    counts, scorer = score(store, tmp_path / "album")
    assert counts.done == images and scorer.seen == counts.scored
    check_whole(store, images, contents)


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_kill_loses_and_doubles_no_row(tmp_path: Path) -> None:
    kill_and_go_on(tmp_path, kills=2, images=400, seed=1)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_kill_at_20_random_points_loses_and_doubles_no_row(tmp_path: Path) -> None:
    kill_and_go_on(tmp_path, kills=20, images=5000, seed=2)


def test_two_processes_on_one_store_lose_and_double_no_row(tmp_path: Path) -> None:
    for number in range(60):
        picture(tmp_path / "album" / f"{number}.png", number)
    runs = [start(tmp_path / "s.sqlite", tmp_path / "album", 0.005) for _ in range(2)]
    for run in runs:
        assert run.communicate()[1] == b"" and run.returncode == 0
    check_whole(tmp_path / "s.sqlite", 60, 60)
