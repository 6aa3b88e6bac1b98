"""Folders, tar shards and list files: what is found in them, and what is said of what cannot be read."""

from __future__ import annotations

import gzip
import io
import os
import sys
import tarfile
from collections import Counter
from pathlib import Path

import pytest

from qsit_plugin.bulk.inputs.sources import listed, sources
from qsit_plugin.images.errors import ImageError
from qsit_plugin.images.formats import left_out
from tests.bulk.brightness import score
from tests.bulk.conftest import OLD, picture


def shard(path: Path, album: Path, mode: str = "w") -> Path:
    """As webdataset writes it: each image beside a JSON of the same key."""
    with tarfile.open(path, mode) as file:
        for number, name in enumerate(("a.png", "b.png", "inner/c.png", "bad.png")):
            for end, content in ((".png", (album / name).read_bytes()), (".json", b"{}")):
                member = tarfile.TarInfo(f"{number:06}{end}")
                member.size = len(content)
                file.addfile(member, io.BytesIO(content))
    os.utime(path, (OLD, OLD))
    return path


@pytest.mark.parametrize(("name", "mode"), [("s.tar", "w"), ("s.tar.gz", "w:gz"), ("s.tgz", "w:gz")])
def test_the_images_of_a_shard_are_scored_once_under_its_name_and_their_own(album, tmp_path, name, mode) -> None:
    path = shard(tmp_path / name, album, mode)
    assert [Path(source.path).name for source in sources([str(path)])] == [f"{n:06}.png" for n in range(4)]
    counts, _ = score(tmp_path / "s.sqlite", path)
    assert (counts.scored, counts.failed) == (3, 1)
    counts, scorer = score(tmp_path / "s.sqlite", path)
    assert (counts.known, scorer.seen) == (3, 1)
    counts, scorer = score(tmp_path / "s.sqlite", album)
    assert (counts.scored, counts.known) == (0, 3)  # the same contents as files


def test_a_folder_of_shards_is_read_and_a_damaged_one_is_said(album: Path, tmp_path: Path) -> None:
    (tmp_path / "shards").mkdir()
    shard(tmp_path / "shards" / "0.tar", album)
    (tmp_path / "shards" / "1.tar").write_bytes((tmp_path / "shards" / "0.tar").read_bytes()[:1800])
    (tmp_path / "shards" / "2.tar").write_bytes(b"no tar at all" * 99)
    found = list(sources([str(tmp_path / "shards")]))
    assert sum("0.tar" in source.path for source in found if not isinstance(source, ImageError)) == 4
    said = {Path(error.source).name: error.reason for error in found if isinstance(error, ImageError)}
    assert set(said) == {"1.tar", "2.tar"} and all("not a whole tar file" in reason for reason in said.values())


@pytest.mark.parametrize("name", ["s.tar", "s.tar.gz"])
def test_a_shard_that_breaks_off_between_two_members_is_said(album: Path, tmp_path: Path, name: str) -> None:
    """tarfile takes that for the end; the members behind would be missing in silence."""
    whole = gzip.decompress(shard(tmp_path / "whole.tar.gz", album, "w:gz").read_bytes())
    short = whole[: whole.index(b"000001.png") + 100]
    (tmp_path / name).write_bytes(gzip.compress(short) if name.endswith("gz") else short)
    found = list(sources([str(tmp_path / name)]))
    assert "it breaks off behind" in found[-1].reason and len(found) == 2


def test_hidden_files_and_links_to_folders_are_left_out_and_raw_files_counted(album: Path, tmp_path: Path) -> None:
    picture(album / ".hidden.png", 1)
    picture(album / ".thumbs" / "x.png", 1)
    (album / "x.cr2").touch()
    (album / "notes.txt").touch()
    try:
        (album / "loop").symlink_to(album, target_is_directory=True)
    except OSError:
        pytest.skip("this user may not make links")
    skipped: Counter[str] = Counter()
    found = sorted(Path(source.path).name for source in sources([str(album)], skipped=skipped))
    assert found == ["a.png", "b.png", "bad.png", "c.png"]
    assert left_out(skipped.elements()) == "1 file left out (.cr2)"
    flat = sorted(Path(source.path).name for source in sources([str(album)], recursive=False))
    assert flat == ["a.png", "b.png", "bad.png"]


def test_what_is_no_file_is_said_in_the_words_of_score(album: Path, tmp_path: Path) -> None:
    (album / "empty.png").touch()
    names = {"gone.png": "no such file", "empty.png": "empty file", "inner": None}
    for name, words in names.items():
        for source in sources([str(album / name)]):
            if words is not None:
                with pytest.raises(ImageError, match=words):
                    source.read()
    (tmp_path / "none").mkdir()
    assert "no image files" in next(iter(sources([str(tmp_path / "none")]))).reason


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no named pipes in folders")
def test_a_named_pipe_in_a_folder_does_not_stop_the_run(album: Path, tmp_path: Path) -> None:
    os.mkfifo(album / "pipe.png")
    counts, _ = score(tmp_path / "s.sqlite", album)
    assert (counts.scored, counts.failed) == (3, 2)


def test_a_list_file_is_read_by_lines_or_by_nul(tmp_path: Path) -> None:
    (tmp_path / "lines.txt").write_bytes(b"\xef\xbb\xbfa.png\r\n\r\n b.png\nlast.png")
    assert list(listed(str(tmp_path / "lines.txt"))) == ["a.png", " b.png", "last.png"]
    (tmp_path / "nul.txt").write_bytes(b"a\nb.png\0caf\xe9.png\0")
    assert list(listed(str(tmp_path / "nul.txt"))) == ["a\nb.png", os.fsdecode(b"caf\xe9.png")]
    many = [f"{number:020}.png" for number in range(20_000)]
    (tmp_path / "many.txt").write_text("\n".join(many))
    assert list(listed(str(tmp_path / "many.txt"))) == many


def test_names_in_a_list_are_no_patterns(album: Path) -> None:
    picture(album / "[a].png", 5)
    assert [Path(source.path).name for source in sources([str(album / "[a].png")])] == ["[a].png"]
