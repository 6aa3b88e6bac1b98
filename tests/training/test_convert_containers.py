"""Parquet, tar and Hugging Face datasets: the same rows as from JSON, and images written as they are stored."""

import hashlib
import io
import json
import tarfile
from collections.abc import Iterable
from pathlib import Path

import pytest
from PIL import Image

from qsit_plugin.evaluation.datasets.authentic import Columns
from qsit_plugin.evaluation.datasets.ratings import DatasetError
from qsit_plugin.training.data import webdataset
from qsit_plugin.training.data.conversations import convert_conversations
from qsit_plugin.training.data.conversion import Conversion, Images
from qsit_plugin.training.data.ratings import convert_ratings
from qsit_plugin.training.data.rows import TrainingRow, to_record
from qsit_plugin.training.levels import LevelScale

SCALE = LevelScale.custom(1, 5)
SWIFT = [{"role": "user", "content": "<image>Why?"}, {"role": "assistant", "content": "So."}]


def picture(shade: int, form: str = "PNG") -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (8, 8), (shade, shade, shade)).save(stream, form)
    return stream.getvalue()


def sha1(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()


def rated(file: object, folder: Path, **options) -> Conversion:
    return convert_ratings("csv", str(file), Images(folder, folder), scale=SCALE, **options)


def talked(file: object, folder: Path, name: str = "swift", **options) -> Conversion:
    return convert_conversations(name, str(file), Images(folder, folder), **options)


def problem(result: Conversion) -> str:
    (found,) = [example for examples in result.problems.examples.values() for example in examples]
    return found


def parquet(path: Path, rows: list[dict]) -> Path:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow.parquet import write_table

    write_table(pyarrow.Table.from_pylist(rows), path)
    return path


def test_a_parquet_table_with_paths_is_read_as_a_csv_is(tmp_path: Path) -> None:
    (tmp_path / "1.png").write_bytes(picture(1))
    rows = [{"image": "1.png", "mos": 4.0, "sd": 0.6, "scene": "a"}, {"image": "2.png", "mos": None, "sd": None}]
    columns = Columns(sd="sd", group="scene")
    result = rated(parquet(tmp_path / "mine.parquet", rows), tmp_path, columns=columns)
    (row,) = result.rows
    assert (row.image, row.mos, row.quality, row.group, row.source) == ("1.png", 4.0, 0.75, "a", "mine")
    assert row.level_probs == pytest.approx(SCALE.soft(4.0, 0.6), abs=1e-6)
    assert "mine, row 1: the column 'mos' is empty" in problem(result)
    with pytest.raises(DatasetError, match="has no column 'rating'; it holds 'image', 'mos', 'sd', 'scene'"):
        rated(tmp_path / "mine.parquet", tmp_path, columns=Columns(mos="rating"))


def test_images_in_a_table_are_written_as_they_are_stored(tmp_path: Path) -> None:
    """With their name where they have one, which never leads out of the folder; else by their SHA-1."""
    images = [(picture(1, "JPEG"), "1.jpg"), (picture(2), ""), (picture(3), "../../3.png"), (picture(4), "/etc/4.png")]
    rows = [{"image": {"bytes": content, "path": name or None}, "mos": 3.0} for content, name in images]
    result = rated(parquet(tmp_path / "mine.parquet", rows), tmp_path / "new" / "images")
    names = ["1.jpg", f"{sha1(picture(2))}.png", "3.png", "4.png"]
    assert [row.image for row in result.rows] == names
    written = {path.name: path.read_bytes() for path in (tmp_path / "new" / "images").iterdir()}
    assert written == dict(zip(names, [content for content, _ in images], strict=True))


def test_unpacking_again_writes_nothing_new_and_no_file_is_overwritten(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "1.png").write_bytes(b"mine")
    (folder / "2.png").symlink_to(tmp_path / "elsewhere.png")
    rows = [{"image": {"bytes": picture(shade), "path": f"{shade}.png"}, "mos": 3.0} for shade in (1, 2, 3)]
    table = parquet(tmp_path / "mine.parquet", rows)
    first = [row.image for row in rated(table, folder).rows]
    assert first == [f"{sha1(picture(1))}.png", f"{sha1(picture(2))}.png", "3.png"]
    files = sorted(folder.iterdir())
    assert [row.image for row in rated(table, folder).rows] == first
    assert sorted(folder.iterdir()) == files
    assert (folder / "1.png").read_bytes() == b"mine"
    assert not (tmp_path / "elsewhere.png").exists()


def test_bytes_that_are_no_image_are_a_bad_row(tmp_path: Path) -> None:
    rows = [{"image": b"no picture", "mos": 3.0}, {"image": picture(1), "mos": 3.0}]
    result = rated(parquet(tmp_path / "mine.parquet", rows), tmp_path / "images")
    assert [row.image for row in result.rows] == [f"{sha1(picture(1))}.png"]
    assert "row 0 (without id): its embedded image is not one that can be read" in problem(result)
    assert len(list((tmp_path / "images").iterdir())) == 1
    rows = [{"image": b"no picture", "mos": 3.0}]
    assert rated(parquet(tmp_path / "mine.parquet", rows), tmp_path).rows == []


def test_conversations_in_a_table_keep_their_turns_and_images(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "<image><image>Which?"}, {"role": "assistant", "content": "1."}]
    rows = [{"messages": turns, "images": [{"bytes": picture(1), "path": None}, {"bytes": picture(2), "path": None}]}]
    (row,) = talked(parquet(tmp_path / "mine.parquet", rows), tmp_path / "images").rows
    assert row.images == (f"{sha1(picture(1))}.png", f"{sha1(picture(2))}.png")
    assert [part["type"] for part in row.messages[0]["content"]] == ["image", "image", "text"]


def test_our_own_rows_come_back_out_of_a_table(tmp_path: Path) -> None:
    (tmp_path / "1.png").write_bytes(picture(1))
    table = parquet(tmp_path / "mine.parquet", [{"image": "1.png", "mos": 4.0}])
    rows = [*rated(table, tmp_path).rows, *talked(_swift_parquet(tmp_path), tmp_path).rows]
    again = talked(parquet(tmp_path / "rows.parquet", [to_record(row) for row in rows]), tmp_path, "jsonl")
    assert again.rows == rows


def _swift_parquet(folder: Path) -> Path:
    return parquet(folder / "talk.parquet", [{"messages": SWIFT, "images": ["1.png"]}])


def test_votes_come_from_a_table_too(tmp_path: Path) -> None:
    image = {"bytes": picture(1), "path": "1.png"}
    rows = [{"image": image, "rater": 1, "rating": 3}, {"image": image, "rater": 2, "rating": 4}]
    table = parquet(tmp_path / "study.parquet", rows)
    result = convert_ratings("votes", table, Images(tmp_path / "images", tmp_path), scale=SCALE)
    assert [(row.image, row.mos) for row in result.rows] == [("images/1.png", 3.5)]
    assert "2 votes of 2 raters on 1 images" in result.notes[0]


def test_a_torn_table_is_named(tmp_path: Path) -> None:
    table = parquet(tmp_path / "mine.parquet", [{"image": "1.png", "mos": 4.0}])
    table.write_bytes(table.read_bytes()[:-30])
    with pytest.raises(DatasetError, match="mine.parquet is not a whole parquet file"):
        rated(table, tmp_path)


Member = tuple[str, bytes]


def tar(path: Path, members: Iterable[Member | tarfile.TarInfo], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as file:  # type: ignore[call-overload]
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                file.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                file.addfile(info, io.BytesIO(member[1]))
    return path


def record(**fields: object) -> bytes:
    return json.dumps(fields).encode()


@pytest.mark.parametrize(("name", "mode"), [("mine.tar", "w"), ("mine.tar.gz", "w:gz")])
def test_members_of_one_name_are_one_rated_image(tmp_path: Path, name: str, mode: str) -> None:
    members = [("a/001.jpg", picture(1, "JPEG")), ("a/001.json", record(mos=4)), ("a/002.png", picture(2))]
    file = tar(tmp_path / name, [*members, ("a/002.json", record(mos=2))], mode)
    rows = rated(file, tmp_path / "images").rows
    assert [(row.image, row.mos, row.source) for row in rows] == [("a/001.jpg", 4, "mine"), ("a/002.png", 2, "mine")]
    assert (tmp_path / "images" / "a" / "001.jpg").read_bytes() == picture(1, "JPEG")


def test_a_rating_may_be_a_text_member(tmp_path: Path) -> None:
    file = tar(tmp_path / "mine.tar", [("1.png", picture(1)), ("1.txt", b"3.5\n")])
    assert [row.mos for row in rated(file, tmp_path / "images", columns=Columns(mos="txt")).rows] == [3.5]


def test_conversations_of_a_tar_name_the_image_beside_them(tmp_path: Path) -> None:
    llava = [{"from": "human", "value": "<image>\nWhy?"}, {"from": "gpt", "value": "So."}]
    members = [("1.png", picture(1)), ("1.json", record(messages=SWIFT)), ("2.json", record(messages=SWIFT[:0]))]
    result = talked(tar(tmp_path / "swift.tar", members), tmp_path / "images")
    assert [(row.id, row.image) for row in result.rows] == [("1", "1.png")]
    assert "row 1 (2): its conversation must be pairs" in problem(result)
    members = [("7.jpg", picture(1, "JPEG")), ("7.json", record(image="their/place.jpg", conversations=llava))]
    (row,) = talked(tar(tmp_path / "llava.tar", members), tmp_path / "images", "llava").rows
    assert (row.id, row.image) == ("7", "7.jpg")
    two = [{"role": "user", "content": "<image><image>Which?"}, SWIFT[1]]
    members = [("3.0.png", picture(1)), ("3.1.png", picture(2)), ("3.json", record(messages=two))]
    assert talked(tar(tmp_path / "two.tar", members), tmp_path / "images").rows[0].images == ("3.0.png", "3.1.png")


def test_no_name_in_a_tar_leads_out_of_the_folder(tmp_path: Path) -> None:
    names = ["../out.png", "/tmp/out.png", "a/../../out.png", "a\\out.png", "C:out.png", " .png", "..png"]
    members: list[Member | tarfile.TarInfo] = []
    for place, name in enumerate(names):
        members += [(name, picture(place)), (name.removesuffix(".png") + ".json", record(mos=3))]
    link = tarfile.TarInfo("link.png")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    folder = tmp_path / "box" / "images"
    result = rated(tar(tmp_path / "evil.tar", [*members, link]), folder)
    hashes = [f"{sha1(picture(place))}.png" for place in range(len(names) - 1)]  # the last is a hidden file: left out
    assert [row.image for row in result.rows] == hashes
    assert {path for path in (tmp_path / "box").rglob("*") if not path.is_dir()} == {folder / name for name in hashes}
    assert {path.name for path in tmp_path.iterdir()} == {"box", "evil.tar"}


def test_a_name_below_an_image_is_another_file(tmp_path: Path) -> None:
    members = [("a.png", picture(1)), ("a.json", record(mos=3)), ("a.png/b.png", picture(2))]
    result = rated(tar(tmp_path / "odd.tar", [*members, ("a.png/b.json", record(mos=3))]), tmp_path / "images")
    assert [row.image for row in result.rows] == ["a.png", f"{sha1(picture(2))}.png"]


@pytest.mark.parametrize("content", [b"[1]", b"{", b"5", b"[" * 100_000])
def test_a_member_that_is_no_json_object_is_a_bad_row(tmp_path: Path, content: bytes) -> None:
    members = [("1.json", content), ("2.png", picture(2)), ("2.json", record(messages=SWIFT))]
    result = talked(tar(tmp_path / "mine.tar", members), tmp_path)
    assert [row.image for row in result.rows] == ["2.png"]
    assert problem(result).startswith("row 0 (1): 1.json is not a JSON object: ")


def test_a_record_that_would_fill_the_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webdataset, "LARGEST", 1000)
    members = [("1.txt", b"x" * 600), ("2.txt", b"x" * 600), ("2.png", b"x" * 600)]
    with pytest.raises(DatasetError, match="mine.tar: 2 has 1,200 bytes, allowed are 1,000"):
        talked(tar(tmp_path / "mine.tar", members), tmp_path)


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_a_torn_tar_is_named(tmp_path: Path, mode: str) -> None:
    file = tar(tmp_path / "mine.tar", [("1.png", picture(1) * 50), ("1.json", record(mos=3))], mode)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 3])
    with pytest.raises(DatasetError, match="mine.tar is not a whole tar file"):
        rated(file, tmp_path / "images")


def test_the_files_of_a_folder_are_read_by_name_and_only_the_training_split(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    for shade, name in enumerate(["test-00000-of-00001", "train-00000-of-00002", "train-00001-of-00002"]):
        parquet(folder / f"{name}.parquet", [{"messages": SWIFT, "images": [picture(shade)]}])
    rows = talked(folder, tmp_path / "images").rows
    assert [row.image for row in rows] == [f"{sha1(picture(shade))}.png" for shade in (1, 2)]
    assert len(talked(folder, tmp_path / "images", split="all").rows) == 3
    assert len(talked(folder, tmp_path / "images", split="test").rows) == 1
    with pytest.raises(DatasetError, match="no split 'validation': give one of test, training, all"):
        talked(folder, tmp_path / "images", split="validation")


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A DatasetDict on the disk: three rated images for training, one for tests."""
    datasets = pytest.importorskip("datasets")
    form = datasets.Features({"photo": datasets.Image(), "score": datasets.Value("float32")})

    def part(shades: range):
        rows = [{"photo": {"bytes": picture(shade, "JPEG"), "path": None}, "score": 1.0 + shade} for shade in shades]
        return datasets.Dataset.from_list(rows, features=form)

    datasets.DatasetDict(train=part(range(3)), test=part(range(3, 4))).save_to_disk(str(tmp_path / "saved"))
    return tmp_path / "saved"


def test_a_dataset_of_hugging_face_is_read_with_its_splits_and_images(saved: Path, tmp_path: Path) -> None:
    columns = Columns("photo", "score")
    rows = rated(saved, tmp_path / "images", columns=columns).rows
    assert [(row.mos, row.split, row.source) for row in rows] == [(1 + n, "training", "saved") for n in range(3)]
    assert [row.image for row in rows] == [f"{sha1(picture(shade, 'JPEG'))}.jpeg" for shade in range(3)]
    assert (tmp_path / "images" / rows[0].images[0]).read_bytes() == picture(0, "JPEG")
    assert len(rated(saved, tmp_path / "images", columns=columns, split="test").rows) == 1
    assert len(rated(saved / "train", tmp_path / "images", columns=columns).rows) == 3


def test_a_dataset_that_cannot_be_had_from_the_hub_is_one_sentence(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    with pytest.raises(DatasetError, match="owner/none cannot be had from the Hugging Face hub: .* save_to_disk"):
        talked("hf:owner/none", tmp_path)


def test_an_empty_container_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="mine.tar holds no records"):
        talked(tar(tmp_path / "mine.tar", []), tmp_path)
    with pytest.raises(DatasetError, match="none.parquet: no such file"):
        talked(tmp_path / "none.parquet", tmp_path)


def test_a_table_called_as_a_scale_of_ours_does_not_get_its_range(tmp_path: Path) -> None:
    (tmp_path / "1.png").write_bytes(picture(1))
    for name in ("koniq", "deqa"):
        (row,) = rated(parquet(tmp_path / f"{name}.parquet", [{"image": "1.png", "mos": 4.0}]), tmp_path).rows
        assert isinstance(row, TrainingRow)
        assert row.source == f"{name}.parquet"
