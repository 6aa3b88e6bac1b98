"""What fsspec opens, without a network: memory://, zip://, and what is said where an address leads nowhere."""

from __future__ import annotations

import zipfile
from collections import Counter
from pathlib import Path
from uuid import uuid4

import pytest

from qsit_plugin.bulk.export import export
from qsit_plugin.bulk.inputs.sources import sources
from qsit_plugin.images.errors import ImageError
from tests.bulk.brightness import score
from tests.bulk.conftest import picture
from tests.bulk.test_sources import shard

fsspec = pytest.importorskip("fsspec")


@pytest.fixture
def memory(album: Path) -> str:
    """The album at an address: ``memory://...``."""
    root = f"/{uuid4().hex}"
    system = fsspec.filesystem("memory")
    for path in album.rglob("*.png"):
        system.pipe_file(f"{root}/{path.relative_to(album).as_posix()}", path.read_bytes())
    system.pipe_file(f"{root}/.hidden.png", b"x")
    system.pipe_file(f"{root}/notes.txt", b"x")
    system.pipe_file(f"{root}/x.cr2", b"x")
    return f"memory://{root}"


def packed(path: Path, album: Path) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        for one in sorted(album.rglob("*.png")):
            file.write(one, one.relative_to(album))
    return path


def paths(*names: str, **options) -> list[str]:
    return sorted(str(one.source if isinstance(one, ImageError) else one.path) for one in sources(names, **options))


def test_a_folder_at_an_address_is_scored_once_and_under_its_whole_address(album, memory, tmp_path) -> None:
    skipped: Counter[str] = Counter()
    names = [f"{memory}/{name}" for name in ("a.png", "b.png", "bad.png", "inner/c.png")]
    assert paths(memory, skipped=skipped) == names and skipped == {"x.cr2": 1}
    assert paths(memory, recursive=False) == names[:3]
    assert paths(f"{memory}/inner") == paths(f"{memory}/inner/c.png") == paths(f"{memory}/inner/*.png") == names[3:]
    counts, scorer = score(tmp_path / "s.sqlite", memory)
    assert (counts.scored, counts.failed, scorer.seen) == (3, 1, 4)
    counts, scorer = score(tmp_path / "s.sqlite", memory)
    assert (counts.known, counts.failed, scorer.seen) == (3, 1, 1)
    assert score(tmp_path / "s.sqlite", album)[0].scored == 0, "the same contents as files"
    assert export(tmp_path / "s.sqlite", tmp_path / "x.csv", existing=True) == (8, 0)


def test_an_image_that_changed_at_its_address_is_scored_again(album: Path, memory: str, tmp_path: Path) -> None:
    score(tmp_path / "s.sqlite", memory)
    fsspec.filesystem("memory").pipe_file(f"{memory[9:]}/a.png", picture(tmp_path / "new.png", 77).read_bytes())
    assert score(tmp_path / "s.sqlite", memory)[0].scored == 1


def test_what_a_store_says_of_a_file_tells_a_change(album: Path) -> None:
    from datetime import UTC, datetime

    from qsit_plugin.bulk.inputs.addresses import _told

    tags = [_told({"ETag": tag, "LastModified": datetime(2026, 1, 1, tzinfo=UTC)}) for tag in ('"a"', '"b"', '"a"')]
    assert tags[0] == tags[2] != tags[1] and all(tag < 0 for tag in tags)
    assert (
        _told({"LastModified": datetime(2026, 1, 1, tzinfo=UTC)})
        == _told({"mtime": 1767225600.0})
        == 1767225600 * 10**9
    )
    assert _told({"size": 5, "mtime": "yesterday"}) is None


def test_the_members_of_a_zip_lie_under_its_own_address_wherever_the_program_runs(album, tmp_path, monkeypatch) -> None:
    packed(tmp_path / "one.zip", album)
    (tmp_path / "other").mkdir()
    picture(album / "a.png", 50)
    packed(tmp_path / "other" / "one.zip", album)
    monkeypatch.chdir(tmp_path)
    names = [f"zip://{n}::{tmp_path / 'one.zip'}" for n in ("a.png", "b.png", "bad.png", "inner/c.png")]
    assert paths("zip://::one.zip") == names == paths(f"zip://::{tmp_path / 'one.zip'}")
    assert score(tmp_path / "s.sqlite", "zip://::one.zip")[0].scored == 3
    counts, scorer = score(tmp_path / "s.sqlite", "zip://::one.zip")
    assert (counts.known, scorer.seen) == (3, 1)
    counts, _ = score(tmp_path / "s.sqlite", f"zip://::{tmp_path / 'other' / 'one.zip'}")
    assert (counts.scored, counts.known) == (1, 2)
    assert export(tmp_path / "s.sqlite", tmp_path / "x.csv") == (8, 0)


def test_a_shard_at_an_address_is_read(album: Path, tmp_path: Path) -> None:
    content = shard(tmp_path / "s.tar", album).read_bytes()
    address = f"memory:///{uuid4().hex}"
    fsspec.filesystem("memory").pipe_file(f"{address[9:]}/s.tar", content)
    fsspec.filesystem("memory").pipe_file(f"{address[9:]}/cut.tar", content[:1800])
    assert score(tmp_path / "s.sqlite", f"{address}/s.tar")[0].scored == 3
    counts, scorer = score(tmp_path / "s.sqlite", f"{address}/s.tar")
    assert (counts.known, scorer.seen) == (3, 1)
    assert f"{address}/s.tar/000000.png" in paths(address)
    failed = [one for one in sources([address]) if isinstance(one, ImageError)]
    assert [Path(str(one.source)).name for one in failed] == ["cut.tar"]


def test_file_addresses_are_files(album: Path) -> None:
    assert paths(f"file://{album}") == paths(str(album))


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("memory://gone/a.png", "nothing is at this address"),
        ("memory://gone/*.png", "nothing matches"),
        ("nosuch://x/a.png", "Protocol not known"),
        ("zip://a.png::gone.zip", "nothing is at this address"),
    ],
)
def test_an_address_that_leads_nowhere_is_an_error_that_says_so(address: str, words: str) -> None:
    (found,) = sources([address])
    assert isinstance(found, ImageError) and words in found.reason


def test_an_image_that_vanishes_from_its_address_is_an_error(memory: str) -> None:
    found = {Path(one.path).name: one for one in sources([memory])}
    fsspec.filesystem("memory").rm(f"{memory[9:]}/a.png")
    with pytest.raises(ImageError, match="no such file"):
        found["a.png"].read()


def test_the_command_takes_addresses_alone_and_in_lists(qsit, album: Path, memory: str, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text(f"{memory}/inner/c.png\n")
    said = qsit("score", f"{memory}/a.png", "--list", tmp_path / "list.txt", "--out", tmp_path / "s.sqlite")
    assert said.exit_code == 0 and "2 images: 2 scored" in said.stderr
    refused = qsit("score", f"{memory}/a.png", "--out", tmp_path / "s.jsonl")
    assert refused.exit_code == 1
