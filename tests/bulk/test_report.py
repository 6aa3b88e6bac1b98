"""``qsit report``: what is in the page, and that names and models in it are text only."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import sqlite3
import sys
import tarfile
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from qsit_plugin.bulk import report as module
from qsit_plugin.bulk.paired import paired
from qsit_plugin.bulk.report import report
from qsit_plugin.bulk.store import StoreError
from qsit_plugin.bulk.thumbnails import LARGEST, SIDE, thumbnails
from tests.bulk.brightness import ABOUT, score
from tests.bulk.conftest import picture

OTHER = ABOUT | {"key": "1" * 16, "model": "other", "fingerprint": "1" * 12}


class Parts(HTMLParser):
    """The elements of a page, and the text of its scripts."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, Any]]] = []
        self.scripts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.scripts += [""] if tag == "script" else []

    def handle_data(self, data: str) -> None:
        if self.cdata_elem == "script":
            self.scripts[-1] += data

    @property
    def page(self) -> dict[str, Any]:
        return json.loads(self.scripts[0])

    @property
    def rows(self) -> list[list[Any]]:
        return json.loads(self.scripts[1])


def read(path: Path) -> Parts:
    return Parts(path.read_text("utf-8"))


@pytest.fixture
def store(album: Path, tmp_path: Path) -> Path:
    score(tmp_path / "s.sqlite", album)
    return tmp_path / "s.sqlite"


def test_a_page_holds_every_image_worst_first_with_its_picture(store: Path, tmp_path: Path) -> None:
    made = report(store, tmp_path / "r.html")
    assert (made.listed, made.scored, made.failed) == (3, 3, 1)
    page, rows = read(tmp_path / "r.html").page, read(tmp_path / "r.html").rows
    assert [row[0] for row in rows] and {row[0] for row in rows} == {"a.png", "b.png", "inner/c.png"}
    assert [row[1] for row in rows] == sorted(row[1] for row in rows)
    assert all(row[8] for row in rows) and rows[0][2:7] == [2, [0.2] * 5, 0.1, 16, 12]
    assert (page["name"], page["link"]) == ("album", "album/")
    assert page["counts"] == [0, 0, 3, 0, 0] and sum(page["histogram"]) == 3
    assert page["failed"][0][0] == "bad.png" and "not an image" in page["failed"][0][1]


HOSTILE = ["<!--.png", "{{script}}.png", "{{rows}}.png", "\" onerror='x'.png", "a\nb.png", "&lt;.png"]
HOSTILE += ["<script>alert(1)</script><img src=x>.png"]  # a folder and a file


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such names")
def test_names_answers_and_models_cannot_become_markup(tmp_path: Path) -> None:
    names = HOSTILE + ([os.fsdecode(b"caf\xe9.png")] if sys.platform == "linux" else [])
    for seed, name in enumerate(names):
        picture(tmp_path / "</title><script>" / name, seed)
    about = ABOUT | {"model": "</script><script>alert(2)</script>"}
    score(tmp_path / "s.sqlite", tmp_path / "<", about=about)
    answer = {
        "path": str(tmp_path / "</title><script>" / "&lt;.png"),
        "question": "</script>",
        "text": "<img src=x onerror=alert(3)>",
    }
    (tmp_path / "a.jsonl").write_text(json.dumps(answer) + "\n", "utf-8")
    report(tmp_path / "s.sqlite", tmp_path / "r.html", answers=tmp_path / "a.jsonl")
    parts = read(tmp_path / "r.html")
    assert {row[0] for row in parts.rows} == set(names)
    assert [row[9] for row in parts.rows if row[9]] == [[["</script>", "<img src=x onerror=alert(3)>"]]]
    assert parts.page["about"]["model"] == about["model"]
    frame = Parts((Path(module.__file__).parent / "page" / "page.html").read_text("utf-8"))
    assert [tag for tag, _ in parts.tags] == [tag for tag, _ in frame.tags], "no element beside those of the template"


def test_a_page_refers_to_nothing_outside_itself(store: Path, tmp_path: Path) -> None:
    report(store, tmp_path / "r.html")
    text = (tmp_path / "r.html").read_text("utf-8")
    parts = Parts(text)
    given = [value for _, attributes in parts.tags for name, value in attributes.items() if name in ("src", "href")]
    assert given == ["data:,"]
    assert not re.findall(r"https?://|@import|url\(|fetch\(|XMLHttpRequest|innerHTML|eval\(", text)
    (policy,) = [a["content"] for _, a in parts.tags if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; img-src data:;") and "unsafe" not in policy


def test_of_very_many_images_the_worst_and_the_best_are_listed(store: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(module, "LISTED", 2)
    made = report(store, tmp_path / "r.html", pictures=1)
    rows = read(tmp_path / "r.html").rows
    assert (made.listed, made.scored, made.thumbnails) == (2, 3, 1)
    assert sum(read(tmp_path / "r.html").page["histogram"]) == 3
    monkeypatch.undo()
    report(store, tmp_path / "all.html")
    every = read(tmp_path / "all.html").rows
    assert [row[0] for row in rows] == [every[0][0], every[2][0]]


def test_two_runs_are_paired_by_content(store: Path, album: Path, tmp_path: Path) -> None:
    (album / "a.png").rename(album / "renamed.png")
    score(store, album)  # a.png and renamed.png: one content, two rows
    score(store, album, about=OTHER)
    change = sqlite3.connect(store)
    change.execute("UPDATE result SET score = score + 0.1 WHERE recipe = 2")
    change.commit()
    change.close()
    report(store, tmp_path / "r.html", recipe=1, against="2")
    page, rows = read(tmp_path / "r.html").page, read(tmp_path / "r.html").rows
    assert page["pairs"]["count"] == 3 and page["pairs"]["mean"] == pytest.approx(0.1)
    assert page["pairs"]["better_interval"] == [1.0, 1.0] and page["against"] == "other, recipe 2"
    assert len(rows) == 4 and all(row[7] - row[1] == pytest.approx(0.1, abs=2e-5) for row in rows)
    score(tmp_path / "two.sqlite", album, about=OTHER)
    report(store, tmp_path / "r.html", recipe=1, against=str(tmp_path / "two.sqlite"))
    assert read(tmp_path / "r.html").page["pairs"]["mean"] == pytest.approx(0.0)


def test_the_paired_interval_holds_what_it_should() -> None:
    rng = np.random.default_rng(4)
    hits = 0
    for _ in range(100):
        a = rng.random(60)
        b = a + rng.normal(0.02, 0.05, 60)
        found = paired(a, b)
        hits += found.mean_interval[0] <= 0.02 <= found.mean_interval[1]
        assert found.mean_interval[1] - found.mean_interval[0] < 0.06, "narrower than of two independent means (.2)"
    assert 87 <= hits <= 100, "of 100 intervals of 95 %: fewer than 87 by chance once in 1,000 seeds"
    assert paired([0.5, 0.5], [0.5, 0.5]).better == 0.5
    with pytest.raises(ValueError, match="at least two"):
        paired([0.5], [0.6])


def test_images_in_tar_shards_have_pictures_and_no_link(album: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "0.tar", "w") as file:
        for path in sorted(album.rglob("*.png")):
            file.add(path, path.name)
    score(tmp_path / "s.sqlite", tmp_path / "0.tar")
    report(tmp_path / "s.sqlite", tmp_path / "r.html")
    rows = read(tmp_path / "r.html").rows
    assert len(rows) == 3 and all(row[8] and row[10] is False for row in rows)


def test_a_thumbnail_is_small_and_one_of_a_file_that_is_gone_is_left_out(tmp_path: Path) -> None:
    photo = np.tile(np.linspace(0, 255, 3000).astype(np.uint8)[None, :, None], (1000, 1, 3))
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    Image.fromarray(photo).save(tmp_path / "a.jpg", exif=exif)
    for number in range(70):
        picture(tmp_path / f"{number}.png", number)
    paths = [str(tmp_path / "a.jpg"), str(tmp_path / "gone.png"), *(str(tmp_path / f"{n}.png") for n in range(70))]
    made = thumbnails(paths)
    assert set(made) == set(paths) - {str(tmp_path / "gone.png")}
    content = base64.b64decode(made[paths[0]])
    assert len(content) <= LARGEST and Image.open(io.BytesIO(content)).size == (SIDE // 3, SIDE)


def test_the_command_and_what_it_refuses(qsit, store: Path, album: Path, tmp_path: Path) -> None:
    result = qsit("report", store, "--out", tmp_path / "r.html")
    assert result.exit_code == 0 and "3 of 3 images, 3 with a picture" in result.stderr
    (tmp_path / "bad.jsonl").write_text("{}\n")
    for wrong, words in (
        (("--out", tmp_path / "r.txt"), "suffix"),
        (("--out", tmp_path / "r.html", "--against", "7"), "no recipe 7"),
        (("--out", tmp_path / "r.html", "--against", "gone.sqlite"), "no such file"),
        (("--out", tmp_path / "r.html", "--answers", tmp_path / "gone.jsonl"), "no such file"),
        (("--out", tmp_path / "r.html", "--answers", tmp_path / "bad.jsonl"), "line 1"),
    ):
        refused = qsit("report", store, *wrong)
        assert refused.exit_code == 2 and words in refused.stderr, refused.stderr
    with pytest.raises(StoreError, match="no such file"):
        report(tmp_path / "gone.sqlite", tmp_path / "r.html")
