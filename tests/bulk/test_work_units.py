"""Units of work and their Parquet files: what a worker of a cluster does, without a cluster."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest

from qsit_plugin.bulk import Scorer, work_units
from qsit_plugin.bulk.work_units import Item, UnseenError, part_name, units, write_part
from qsit_plugin.images.errors import ImageError
from tests.bulk.conftest import OLD, picture
from tests.bulk.test_sources import shard

parquet = pytest.importorskip("pyarrow.parquet", reason='needs pip install "qsit-plugin[bulk]"')


@pytest.fixture(scope="module")
def scorer() -> Scorer:
    return Scorer("qsit-nano", device="cpu")


def names(unit: list[Item]) -> list[str]:
    return [Path(item.name).name for item in unit]


def test_a_folder_is_cut_into_units_by_name_and_a_shard_is_one_of_its_own(album, tmp_path, monkeypatch) -> None:
    shard(album / "inner" / "s.tar", album)
    picture(album / ".hidden.png", 1)
    (album / "x.cr2").touch()
    monkeypatch.setattr(work_units, "IMAGES", 2)
    skipped: Counter[str] = Counter()
    found = [names(unit) for unit in units([str(album)], skipped=skipped)]
    assert found == [["a.png", "b.png"], ["bad.png", "c.png"], ["s.tar"]]
    assert list(skipped) == ["x.cr2"]
    assert [names(unit) for unit in units([str(album)], recursive=False)] == [["a.png", "b.png"], ["bad.png"]]


def test_a_dataset_in_a_folder_is_a_unit_of_its_own_and_not_searched(album) -> None:
    (album / "saved").mkdir()
    for name in ("state.json", "dataset_info.json", "data-00000-of-00001.arrow", "preview.png"):
        (album / "saved" / name).touch()
    found = [names(unit) for unit in units([str(album)])]
    assert ["saved"] in found and not any("preview.png" in unit for unit in found)


def test_a_part_has_the_rows_of_the_library_in_order_and_an_error_row_for_each_broken_image(
    scorer, album, tmp_path
) -> None:
    odd = [str(album / name) for name in ("a.png", "bad.png", "gone.png", "b.png")]
    (unit,) = units([*odd, ImageError("*.nef", "no file matches this pattern")])
    result = write_part(tmp_path, "part-1.parquet", unit, scorer)
    table = parquet.read_table(tmp_path / "part-1.parquet").to_pylist()
    assert [row["path"] for row in table] == [*odd, "*.nef"]
    expected = scorer.records([odd[0], odd[3]])
    assert [row["score"] for row in table] == [expected[0]["score"], None, None, expected[1]["score"], None]
    assert table[0]["excellent"] == expected[0]["probabilities"]["excellent"] and table[0]["error"] is None
    assert result["rows"] == 5 and [path for path, _ in result["errors"]] == [odd[1], odd[2], "*.nef"]
    assert result["errors"][2][1] == "ImageError: no file matches this pattern"


def test_a_shard_and_an_empty_folder_give_their_rows(scorer, album, tmp_path) -> None:
    (tmp_path / "empty").mkdir()
    path = shard(tmp_path / "s.tar", album)
    found = list(units([str(path), str(tmp_path / "empty")]))
    results = [write_part(tmp_path, f"{at}.parquet", unit, scorer) for at, unit in enumerate(found)]
    assert [result["rows"] for result in results] == [4, 1]
    assert [error for _, error in results[1]["errors"]] == ["ImageError: no image files in this folder"]
    first = parquet.read_table(tmp_path / "0.parquet").to_pylist()[0]
    assert (first["path"], first["score"]) == (f"{path}/000000.png", scorer.record(album / "a.png")["score"])


def test_a_part_that_is_there_is_not_made_again(scorer, album, tmp_path) -> None:
    (unit,) = units([str(album)])
    first = write_part(tmp_path, "p.parquet", unit, scorer)
    (album / "a.png").write_bytes(b"other")
    assert write_part(tmp_path, "p.parquet", unit, Scorer("no-such-model")) == first


def test_a_part_is_named_after_files_as_they_are_and_after_the_recipe(album) -> None:
    (unit,), (again,) = units([str(album)]), units([str(album)])
    assert part_name(unit, "k") == part_name(again, "k") != part_name(unit, "other")
    os.utime(album / "a.png", (OLD + 9, OLD + 9))
    (changed,) = units([str(album)])
    assert part_name(changed, "k") != part_name(unit, "k")


def test_a_worker_that_fails_leaves_no_part(album, tmp_path) -> None:
    class Failing:
        def iter_records(self, images):
            for _ in images:
                yield {"score": 0.5}
                raise MemoryError("the device is gone")

    (unit,) = units([str(album)])
    (tmp_path / "out").mkdir()
    with pytest.raises(MemoryError):
        write_part(tmp_path / "out", "p.parquet", unit, Failing())
    assert list((tmp_path / "out").iterdir()) == []


def test_images_that_a_worker_cannot_see_are_refused_and_one_that_vanished_is_a_row(scorer, album, tmp_path) -> None:
    (unit,) = units([str(album)])
    (album / "a.png").unlink()
    assert [path for path, _ in write_part(tmp_path, "p.parquet", unit, scorer)["errors"]] == [
        str(album / "a.png"), str(album / "bad.png"),
    ]  # fmt: skip
    album.rename(tmp_path / "elsewhere")
    with pytest.raises(UnseenError, match="every node mounts under the same path"):
        write_part(tmp_path, "q.parquet", unit, scorer)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
def test_a_name_that_is_no_utf_8_and_one_with_a_line_feed_are_scored(scorer, album, tmp_path) -> None:
    for name in ("line\nfeed.png", os.fsdecode(b"caf\xe9.png")):
        picture(tmp_path / "odd" / name, 1)
    (unit,) = units([str(tmp_path / "odd")])
    assert part_name(unit, "k")
    assert write_part(tmp_path, "p.parquet", unit, scorer) == {"rows": 2, "errors": []}
