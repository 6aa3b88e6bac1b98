"""Hugging Face datasets that save_to_disk wrote."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from qsit_plugin.bulk.export import export
from qsit_plugin.bulk.inputs.sources import sources
from qsit_plugin.bulk.thumbnails import thumbnails
from qsit_plugin.images.errors import ImageError
from tests.bulk.brightness import score
from tests.bulk.conftest import picture

datasets = pytest.importorskip("datasets")
pytest.importorskip("pyarrow")


def saved(folder: Path, album: Path, **columns) -> Path:
    """Five rows in two files: the album's images, the damaged one, and a row without an image."""
    paths = [str(album / name) for name in ("a.png", "b.png", "bad.png", "inner/c.png")] + [None]
    data = datasets.Dataset.from_dict({"photo": paths, "note": list("abcde"), **columns})
    kinds = {"photo": datasets.Image(), **{name: datasets.Image() for name in columns}}
    for name, kind in kinds.items():
        data = data.cast_column(name, kind)
    data.save_to_disk(folder, num_shards=2)
    return folder


def test_the_images_of_a_dataset_are_scored_once_under_file_and_row(album: Path, tmp_path: Path) -> None:
    folder = saved(tmp_path / "set", album)
    found = [one.path for one in sources([str(folder)])]
    first, second = (folder / f"data-0000{number}-of-00002.arrow" for number in range(2))
    assert found == [f"{first}/{row}" for row in range(3)] + [f"{second}/{row}" for row in range(2)]
    counts, _ = score(tmp_path / "s.sqlite", folder)
    assert (counts.scored, counts.failed) == (3, 2)
    counts, scorer = score(tmp_path / "s.sqlite", folder)
    assert (counts.known, scorer.seen) == (3, 1)
    assert score(tmp_path / "s.sqlite", album)[0].scored == 0, "the same contents as files"
    assert export(tmp_path / "s.sqlite", tmp_path / "x.csv", existing=True) == (9, 0)
    shutil.rmtree(folder)
    assert export(tmp_path / "s.sqlite", tmp_path / "x.csv", existing=True) == (4, 0)


def test_datasets_are_met_in_folders_and_all_splits_are_read(album: Path, tmp_path: Path) -> None:
    split = datasets.load_from_disk(str(saved(tmp_path / "set", album)))
    datasets.DatasetDict({"train": split, "test": split}).save_to_disk(tmp_path / "both" / "inner")
    found = list(sources([str(tmp_path / "both")]))
    assert len(found) == 10 and not any(isinstance(one, ImageError) for one in found)
    assert list(sources([str(tmp_path / "both")], shards=False))[0].reason.startswith("no image files")


def test_of_several_columns_one_has_to_be_named(album: Path, tmp_path: Path) -> None:
    folder = str(saved(tmp_path / "set", album, other=[str(album / "b.png")] * 5))
    found = list(sources([folder]))
    assert all("2 columns of images; give --image-column one of: photo, other" in one.reason for one in found)
    assert sum(isinstance(one, ImageError) for one in sources([folder], column="other")) == 0
    assert "holds string" in next(iter(sources([folder], column="note"))).reason
    assert "no column 'x'" in next(iter(sources([folder], column="x"))).reason


def test_images_that_a_dataset_keeps_outside_are_read_there(album: Path, tmp_path: Path) -> None:
    import pyarrow

    kind = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    column = pyarrow.array([{"bytes": None, "path": str(album / "a.png")}], kind)
    table = pyarrow.table({"image": column})
    with pyarrow.OSFile(str(tmp_path / "x.arrow"), "wb") as file, pyarrow.ipc.new_stream(file, table.schema) as stream:
        stream.write_table(table)
    (found,) = sources([str(tmp_path / "x.arrow")])
    assert found.path == f"{tmp_path / 'x.arrow'}/0" and found.read() == (album / "a.png").read_bytes()


def test_a_dataset_that_was_saved_anew_is_looked_at_again(album: Path, tmp_path: Path) -> None:
    folder = saved(tmp_path / "set", album)
    score(tmp_path / "s.sqlite", folder)
    shutil.rmtree(folder)
    picture(album / "a.png", 60)
    counts, _ = score(tmp_path / "s.sqlite", saved(folder, album))
    assert (counts.scored, counts.known) == (1, 2)


def test_a_damaged_file_of_a_dataset_is_said(album: Path, tmp_path: Path) -> None:
    folder = saved(tmp_path / "set", album)
    file = folder / "data-00001-of-00002.arrow"
    file.write_bytes(file.read_bytes()[:-900])
    (folder / "data-00000-of-00002.arrow").unlink()
    reasons = {Path(str(one.source)).name: one.reason for one in sources([str(folder)]) if isinstance(one, ImageError)}
    assert reasons["data-00000-of-00002.arrow"] == "no such file"
    assert "not a whole file of a dataset" in reasons["data-00001-of-00002.arrow"]
    (folder / "state.json").write_text("{")
    assert "state.json cannot be read" in next(iter(sources([str(folder)]))).reason


def test_a_report_shows_pictures_of_a_dataset(album: Path, tmp_path: Path) -> None:
    file = saved(tmp_path / "set", album) / "data-00000-of-00002.arrow"
    assert set(thumbnails([f"{file}/0", f"{file}/1", "memory://x/a.png"])) == {f"{file}/0", f"{file}/1"}


def test_the_command_names_the_column(qsit, album: Path, tmp_path: Path) -> None:
    folder = saved(tmp_path / "set", album, other=[str(album / "b.png")] * 5)
    said = qsit("score", folder, "--image-column", "other", "--out", tmp_path / "s.sqlite")
    assert said.exit_code == 0 and "5 images: 1 scored, 4 known" in said.stderr
    assert qsit("score", folder, "--image-column", "other", "--out", tmp_path / "s.csv").exit_code == 2
