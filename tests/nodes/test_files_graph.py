"""The table of Score Folder, run by a host's executor, and the rules for files that nodes write."""

import csv
import shutil

import pytest
from PIL import Image

from qsit_plugin.nodes.errors import InputError
from qsit_plugin.nodes.files import append_rows, below, rows_in, table_file
from tests.nodes.graphs import arrived, graph
from tests.nodes.helpers import keep
from tests.nodes.saving import OLDER, PICTURES, WITHOUT_STATE, saver, table
from tests.tiny import tiny_checkpoint


@pytest.mark.parametrize("name", ["../x.csv", "a/../../x.csv", "/etc/x.csv"])
def test_a_file_outside_the_folder_is_refused(tmp_path, name):
    with pytest.raises(InputError, match="must stay inside"):
        below(tmp_path, name, "the csv file")


def test_a_foreign_table_is_not_written_to(tmp_path):
    (tmp_path / "x.csv").write_text("a,b\n1,2\n", encoding="utf-8")
    with pytest.raises(InputError, match="another kind of table"):
        list(append_rows(tmp_path / "x.csv", [{"path": "p"}]))
    assert (tmp_path / "x.csv").read_text(encoding="utf-8") == "a,b\n1,2\n"
    with pytest.raises(InputError, match="must end in .csv"):
        table_file(tmp_path, "scores.py")


def test_a_table_of_an_older_version_is_not_added_to_and_the_cure_is_named(tmp_path):
    (tmp_path / "x.csv").write_text(OLDER + "a.png,0.5" + "," * 14 + "\n", encoding="utf-8")
    before = (tmp_path / "x.csv").read_bytes()
    for use in (rows_in, lambda path: list(append_rows(path, [{"path": "p"}]))):
        with pytest.raises(InputError, match="x.csv was begun by an older version.*fingerprint.*another name"):
            use(tmp_path / "x.csv")
    assert (tmp_path / "x.csv").read_bytes() == before


def folder_graph(**changes):
    inputs = {"model": ["model", 0], "source": "input", "folder": "", "recursive": True, "csv_file": "f.csv"} | changes
    prompt = graph(PICTURES)
    del prompt["score"], prompt["images"]
    prompt["folder"] = {"class_type": "QSiT_ScoreFolder", "inputs": inputs}
    names = ("csv_path", "n_scored", "n_failed", "report")
    return prompt | {f"k{i}": keep(["folder", i], name) for i, name in enumerate(names)}


@pytest.fixture
def photos(host, output):
    folder = host.base / "input" / "photos"
    (folder / "deep").mkdir(parents=True)
    for name, image in zip(("a.png", "deep/b.png"), PICTURES[:2], strict=True):
        Image.fromarray((image.numpy() * 255).round().astype("uint8")).save(folder / name)
    (folder / "broken.png").write_bytes(b"not a png")
    (folder / "notes.txt").write_text("no image", encoding="utf-8")
    yield folder
    shutil.rmtree(folder)


def test_a_folder_becomes_a_table_and_the_next_run_adds_only_what_is_new(host, photos, output, nano):
    assert host.run(folder_graph()).success
    rows = {row["path"]: row for row in table(output / "f.csv")}
    assert set(rows) == {"photos/a.png", "photos/deep/b.png", "photos/broken.png"}
    assert float(rows["photos/a.png"]["score"]) == pytest.approx(nano.score(photos / "a.png").value, abs=1e-5)
    assert "not an image" in rows["photos/broken.png"]["error"]
    assert (arrived("n_scored"), arrived("n_failed")) == ([2], [1])
    (photos / "broken.png").unlink()
    shutil.copy(photos / "a.png", photos / "c.png")
    assert host.run(folder_graph()).success
    assert arrived("n_scored") == [2, 1]
    assert [row["path"] for row in table(output / "f.csv")][3:] == ["photos/c.png"]
    assert len(rows_in(output / "f.csv")) == 4
    assert {row["size"] for row in rows_in(output / "f.csv") if row["path"] == "photos/c.png"} == {
        str((photos / "c.png").stat().st_size)
    }
    assert {row["fingerprint"] for row in rows_in(output / "f.csv")} == {nano.fingerprint}


def test_a_file_that_was_replaced_is_scored_again_and_has_one_row(host, photos, output, nano):
    assert host.run(folder_graph()).success
    before = {row["path"]: row for row in table(output / "f.csv")}
    shutil.copy(photos / "deep" / "b.png", photos / "a.png")
    assert host.run(folder_graph()).success
    rows = table(output / "f.csv")
    assert sorted(row["path"] for row in rows) == ["photos/a.png", "photos/broken.png", "photos/deep/b.png"]
    after = {row["path"]: row for row in rows}
    assert float(after["photos/a.png"]["score"]) == pytest.approx(nano.score(photos / "a.png").value, abs=1e-5)
    assert after["photos/a.png"]["score"] != before["photos/a.png"]["score"]
    assert after["photos/deep/b.png"] == before["photos/deep/b.png"]
    assert arrived("report")[1].splitlines()[:2] == [
        "1 scored, 1 failed, 1 were in the table",
        "1 of them scored again: the file changed, or its row did not say of which state it is",
    ]


def test_unreadable_files_keep_one_row_however_often_the_folder_is_scored(host, photos, output):
    for number in range(2):
        (photos / f"more{number}.png").write_bytes(b"not a png")
    for _ in range(4):
        assert host.run(folder_graph()).success
        (output / "f.csv").touch()
        (photos / "a.png").touch()
    paths = [row["path"] for row in table(output / "f.csv")]
    assert len(paths) == len(set(paths)) == 5
    assert arrived("n_failed") == [3] * 4


def test_a_table_from_before_rows_had_size_and_time_is_continued_and_its_files_are_scored_once_more(
    host, photos, output
):
    (photos / "broken.png").unlink()
    assert host.run(folder_graph()).success
    rows = table(output / "f.csv")
    foreign = rows[0] | {"path": "gone.png"}
    with (output / "f.csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, WITHOUT_STATE, extrasaction="ignore")
        writer.writeheader()
        writer.writerows([*rows, foreign])
    host.fresh()
    assert host.run(folder_graph()).success
    assert host.run(saver(csv_file="f.csv")).success
    found = table(output / "f.csv")
    assert [row["path"] for row in found][:3] == ["gone.png", "photos/a.png", "photos/deep/b.png"]
    assert found[0]["size"] == "" and all(row["size"] for row in found[1:])
    assert arrived("n_scored") == [2, 2]


def test_pictures_and_films_of_other_kinds_are_counted_and_a_folder_of_them_alone_is_an_error_that_says_so(
    host, photos, output
):
    raw = photos / "raw"
    raw.mkdir()
    for name in ("a.CR2", "b.cr2", "film.mov", "notes.txt"):
        (raw / name).write_bytes(b"x")
    assert host.run(folder_graph()).success
    assert arrived("report")[0].splitlines()[-1] == "3 files left out (.cr2, .mov)"
    (error,) = host.run(folder_graph(folder="photos/raw")).errors
    assert error["exception_message"].startswith("no images in input/photos/raw: 3 files left out (.cr2, .mov)")


def test_links_out_of_the_folder_or_in_a_loop_are_left_out_and_counted(host, photos, output, tmp_path):
    shutil.copy(photos / "a.png", tmp_path / "secret.png")
    (photos / "outside.png").symlink_to(tmp_path / "secret.png")
    (photos / "loop.png").symlink_to(photos / "loop.png")
    (photos / "inside.png").symlink_to(photos / "a.png")
    result = host.run(folder_graph())
    assert result.success and not result.errors
    assert {row["path"] for row in table(output / "f.csv")} == {
        "photos/a.png", "photos/deep/b.png", "photos/broken.png", "photos/inside.png"
    }  # fmt: skip
    assert arrived("report")[0].endswith("2 links left out: they lead out of the input folder, or nowhere")


def test_a_folder_that_is_a_link_in_a_loop_is_one_error(host, photos):
    (photos / "ring").symlink_to(photos / "ring")
    (error,) = host.run(folder_graph(folder="photos/ring")).errors
    assert "photos/ring" in error["exception_message"].replace("\\", "/")


def test_files_that_other_weights_of_the_same_name_have_scored_are_scored_again(host, photos, output):
    (photos / "broken.png").unlink()
    folder = host.base / "models" / "qsit" / "mine"
    prompt = folder_graph()
    prompt["model"]["inputs"]["model_name"] = "qsit/mine"
    try:
        for seed in (0, 0, 1):
            shutil.rmtree(folder, ignore_errors=True)
            tiny_checkpoint(folder, official=False, seed=seed)
            assert host.run(prompt).success
    finally:
        shutil.rmtree(folder)
    rows = table(output / "f.csv")
    assert [row["path"] for row in rows] == ["photos/a.png", "photos/deep/b.png"] * 2
    assert {row["model"] for row in rows} == {"qsit/mine"}
    first, second = ({row["fingerprint"] for row in rows[at : at + 2]} for at in (0, 2))
    assert len(first) == len(second) == 1 and first != second


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"folder": "../.."}, "folder must stay inside input/"),
        ({"folder": "absent"}, "no folder"),
        ({"folder": "photos/deep", "recursive": False, "csv_file": "x.txt"}, "must end in .csv"),
    ],
)
def test_a_wrong_folder_or_table_is_one_error(host, photos, changes, message):
    (error,) = host.run(folder_graph(**changes)).errors
    assert message in error["exception_message"]
