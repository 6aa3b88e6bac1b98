"""What is scored once, what is scored again, and what the store holds afterwards."""

from __future__ import annotations

import json
import os
import sqlite3
import sys
import time
from pathlib import Path

import pytest

from qsit_plugin.bulk.export import export
from qsit_plugin.bulk.scoring import SETTLED
from qsit_plugin.bulk.store import APPLICATION, Store, StoreError
from tests.bulk.brightness import ABOUT, score
from tests.bulk.conftest import OLD, picture


def rows(store: Path, **options) -> dict[str, dict]:
    out = store.with_suffix(".jsonl")
    export(store, out, **options)
    found = [json.loads(line) for line in out.read_text("utf-8").splitlines()]
    assert len({row["path"] for row in found}) == len(found)
    return {Path(row["path"]).name: row for row in found}


def test_a_second_run_scores_nothing_but_tries_what_failed_again(album: Path, tmp_path: Path) -> None:
    store = tmp_path / "s.sqlite"
    counts, scorer = score(store, album)
    assert (counts.scored, counts.known, counts.failed, scorer.seen) == (3, 0, 1, 4)
    before = rows(store)
    counts, scorer = score(store, album)
    assert (counts.scored, counts.known, counts.failed, scorer.seen) == (0, 3, 1, 1)
    assert rows(store) == before and set(before) == {"a.png", "b.png", "c.png", "bad.png"}


def test_an_unreadable_image_is_a_row_with_its_error_and_without_a_number(album: Path, tmp_path: Path) -> None:
    score(tmp_path / "s.sqlite", album)
    row = rows(tmp_path / "s.sqlite")["bad.png"]
    assert set(row) == {"path", "error"} and row["error"]["type"] == "ImageError"
    assert "not an image that can be read" in row["error"]["message"]


def test_a_copy_a_renamed_and_a_moved_image_are_not_scored_again(album: Path, tmp_path: Path) -> None:
    (album / "bad.png").unlink()
    picture(album / "copy of a.png", 0)
    counts, scorer = score(tmp_path / "s.sqlite", album)
    assert (counts.scored, counts.known, scorer.seen) == (3, 1, 3)
    (album / "a.png").rename(album / "renamed.png")
    (album / "inner").rename(album / "moved")
    counts, scorer = score(tmp_path / "s.sqlite", album)
    assert (counts.scored, counts.known, scorer.seen) == (0, 4, 0)
    found = rows(tmp_path / "s.sqlite", existing=True)
    assert set(found) == {"renamed.png", "copy of a.png", "b.png", "c.png"}
    assert found["renamed.png"]["score"] == found["copy of a.png"]["score"]
    assert "moved" in found["c.png"]["path"]


def test_a_changed_image_under_an_old_name_is_scored_again(album: Path, tmp_path: Path) -> None:
    score(tmp_path / "s.sqlite", album)
    old = rows(tmp_path / "s.sqlite")["a.png"]["score"]
    picture(album / "a.png", 7, mtime=OLD + 1)
    counts, scorer = score(tmp_path / "s.sqlite", album)
    assert (counts.scored, counts.known) == (1, 2)
    assert rows(tmp_path / "s.sqlite")["a.png"]["score"] != old


def test_a_touched_image_is_hashed_and_not_scored(album: Path, tmp_path: Path) -> None:
    score(tmp_path / "s.sqlite", album)
    os.utime(album / "a.png", (OLD + 9, OLD + 9))
    counts, scorer = score(tmp_path / "s.sqlite", album)
    assert (counts.scored, scorer.seen) == (0, 1)  # the one is bad.png


def _changed_in_secret(path: Path) -> None:
    """Other pixels, the same size and time."""
    size = path.stat().st_size
    content = next(
        content
        for seed in range(100, 10_000)
        if len(content := picture(path.with_name("other.png"), seed).read_bytes()) == size
    )
    path.with_name("other.png").unlink()
    path.write_bytes(content)
    os.utime(path, (OLD, OLD))


def test_verify_finds_a_change_that_size_and_time_do_not_show(album: Path, tmp_path: Path) -> None:
    score(tmp_path / "s.sqlite", album)
    _changed_in_secret(album / "a.png")
    assert score(tmp_path / "s.sqlite", album)[0].scored == 0
    assert score(tmp_path / "s.sqlite", album, verify=True)[0].scored == 1


def test_a_change_within_one_tick_of_the_clock_is_seen_without_verify(album: Path, tmp_path: Path) -> None:
    now = time.time_ns()
    os.utime(album / "a.png", ns=(now, now))
    score(tmp_path / "s.sqlite", album)
    assert time.time_ns() - now < SETTLED, "this machine is too slow for the test"
    _changed_in_secret(album / "a.png")
    os.utime(album / "a.png", ns=(now, now))
    assert score(tmp_path / "s.sqlite", album)[0].scored == 1


def test_a_file_from_the_future_is_hashed_each_time_and_scored_once(album: Path, tmp_path: Path) -> None:
    (album / "bad.png").unlink()
    os.utime(album / "a.png", (OLD * 2, OLD * 2))
    assert score(tmp_path / "s.sqlite", album)[0].scored == 3
    counts, scorer = score(tmp_path / "s.sqlite", album)
    assert (counts.known, scorer.seen) == (3, 0)
    _changed_in_secret(album / "a.png")
    os.utime(album / "a.png", (OLD * 2, OLD * 2))
    assert score(tmp_path / "s.sqlite", album)[0].scored == 1


def test_scores_of_two_models_do_not_mix(album: Path, tmp_path: Path) -> None:
    store = tmp_path / "s.sqlite"
    score(store, album)
    counts, _ = score(store, album, about=ABOUT | {"key": "1" * 16, "model": "other", "fingerprint": "1" * 12})
    assert counts.scored == 3
    with pytest.raises(StoreError, match="not mixed.*1: brightness.*2: other"):
        rows(store)
    assert {row["model"] for row in rows(store, recipe=2).values() if "score" in row} == {"other"}
    with pytest.raises(StoreError, match="no recipe 3"):
        rows(store, recipe=3)


@pytest.mark.parametrize("names", [["a\nb.png", "c\td.png", " e .png", "ü€.png", "'; DROP TABLE image; --.png"]])
def test_names_with_newlines_quotes_and_blanks_are_rows(tmp_path: Path, names: list[str]) -> None:
    if sys.platform == "win32":
        pytest.skip("Windows has no such names")
    for seed, name in enumerate(names):
        picture(tmp_path / "album" / name, seed)
    assert score(tmp_path / "s.sqlite", tmp_path / "album")[0].scored == len(names)
    assert score(tmp_path / "s.sqlite", tmp_path / "album")[0].known == len(names)
    assert set(rows(tmp_path / "s.sqlite", existing=True)) == set(names)


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="only Linux has names that are no UTF-8")
def test_names_that_are_no_utf8_are_rows_in_every_format(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.png")
    picture(tmp_path / "album" / name, 1)
    assert score(tmp_path / "s.sqlite", tmp_path / "album")[0].scored == 1
    assert score(tmp_path / "s.sqlite", tmp_path / "album")[0].known == 1
    assert set(rows(tmp_path / "s.sqlite", existing=True)) == {name}
    export(tmp_path / "s.sqlite", tmp_path / "x.csv")
    assert "caf\\udce9.png" in (tmp_path / "x.csv").read_text("utf-8")
    parquet = pytest.importorskip("pyarrow.parquet")
    export(tmp_path / "s.sqlite", tmp_path / "x.parquet")
    assert parquet.read_table(tmp_path / "x.parquet")["path"][0].as_py().endswith("caf\\udce9.png")


def test_a_file_that_vanishes_before_it_is_read_is_a_row_with_an_error(album: Path, tmp_path: Path) -> None:
    from qsit_plugin.bulk.inputs.sources import sources
    from qsit_plugin.bulk.scoring import score_into
    from tests.bulk.brightness import Brightness

    def vanishing():
        for source in sources([str(album)]):
            if source.path.endswith("b.png"):
                os.unlink(source.path)
            yield source

    with Store(tmp_path / "s.sqlite", ABOUT) as store:
        counts = score_into(store, Brightness(), vanishing())
    assert (counts.scored, counts.failed) == (2, 2)
    assert "no such file" in rows(tmp_path / "s.sqlite")["b.png"]["error"]["message"]
    assert "b.png" not in rows(tmp_path / "s.sqlite", existing=True)


def test_a_file_of_another_program_is_refused_and_left_as_it_is(album: Path, tmp_path: Path) -> None:
    (tmp_path / "text.sqlite").write_text("this is no database, " * 100)
    with sqlite3.connect(tmp_path / "other.sqlite") as other:
        other.execute("CREATE TABLE mine (number INTEGER)")
    other.close()
    for name in ("text.sqlite", "other.sqlite"):
        before = (tmp_path / name).read_bytes()
        with pytest.raises(StoreError, match="name another file"):
            score(tmp_path / name, album)
        assert (tmp_path / name).read_bytes() == before


def test_a_store_of_a_later_version_is_refused(album: Path, tmp_path: Path) -> None:
    score(tmp_path / "s.sqlite", album)
    with sqlite3.connect(tmp_path / "s.sqlite") as file:
        assert file.execute("PRAGMA application_id").fetchone()[0] == APPLICATION
        file.execute("PRAGMA user_version = 99")
    file.close()
    with pytest.raises(StoreError, match="update qsit-plugin"):
        score(tmp_path / "s.sqlite", album)


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="no folder is read-only for this user")
def test_a_read_only_store_is_exported_and_not_written(album: Path, tmp_path: Path) -> None:
    place = tmp_path / "locked"
    place.mkdir()
    score(place / "s.sqlite", album)
    (place / "s.sqlite").chmod(0o444)
    place.chmod(0o555)
    try:
        assert export(place / "s.sqlite", tmp_path / "x.csv") == (4, 0)
        with pytest.raises(StoreError, match="writable"):
            score(place / "s.sqlite", album)
    finally:
        place.chmod(0o755)
