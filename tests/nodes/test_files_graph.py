"""Overlay, Contact Sheet, Quality Map, Save with Score and Score Folder, run by a host's executor."""

import csv
import json
import shutil
from datetime import datetime

import numpy as np
import pytest
import torch
from PIL import Image

from qsit_plugin.nodes.drawing import color_of
from qsit_plugin.nodes.errors import InputError
from qsit_plugin.nodes.files import append_rows, below, rows_in, table_file
from tests.nodes.graphs import arrived, graph
from tests.nodes.helpers import batch, give, keep, photo
from tests.tiny import tiny_checkpoint

PICTURES = batch(photo(0), photo(0, blur=True), photo(1))


def test_colors_go_from_red_over_yellow_to_green():
    red, yellow, green = color_of(0.0), color_of(0.5), color_of(1.0)
    assert red[0] > 200 > red[1] and green[1] > green[0] and min(yellow[:2]) > 200


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


OLDER = "path,score,level,excellent,good,fair,poor,bad,std,width,height,model,dtype,mode,scope,error\n"

WITHOUT_STATE = "path score level excellent good fair poor bad std width height model fingerprint dtype mode scope"
WITHOUT_STATE = (*WITHOUT_STATE.split(), "scope_kind", "error")


def test_a_table_of_an_older_version_is_not_added_to_and_the_cure_is_named(tmp_path):
    (tmp_path / "x.csv").write_text(OLDER + "a.png,0.5" + "," * 14 + "\n", encoding="utf-8")
    before = (tmp_path / "x.csv").read_bytes()
    for use in (rows_in, lambda path: list(append_rows(path, [{"path": "p"}]))):
        with pytest.raises(InputError, match="x.csv was begun by an older version.*fingerprint.*another name"):
            use(tmp_path / "x.csv")
    assert (tmp_path / "x.csv").read_bytes() == before


def node(kind, **inputs):
    return {"class_type": kind, "inputs": {"images": ["images", 0], "scores": ["score", 5]} | inputs}


@pytest.mark.parametrize("position", ["bottom", "top"])
def test_the_overlay_marks_one_edge_and_leaves_the_rest(host, position):
    prompt = graph(PICTURES) | {"o": node("QSiT_Overlay", position=position), "k": keep(["o", 0], "marked")}
    assert host.run(prompt).success
    (marked,) = arrived("marked")
    assert marked.shape == PICTURES.shape and marked.dtype == torch.float32
    strip, rest = (slice(82, None), slice(0, 82)) if position == "bottom" else (slice(0, 14), slice(14, None))
    assert (marked[:, rest] - PICTURES[:, rest]).abs().max() < 0.003
    assert (marked[:, strip] - PICTURES[:, strip]).abs().mean() > 0.1


def test_the_contact_sheet_holds_every_picture_best_first(host, nano):
    prompt = graph(PICTURES)
    prompt["c"] = node("QSiT_ContactSheet", order="best first", columns=2, cell=128)
    assert host.run(prompt | {"k": keep(["c", 0], "sheet")}).success
    (sheet,) = arrived("sheet")
    assert sheet.shape == (1, 2 * (128 + 14 + 4) + 4, 2 * 132 + 4, 3)
    scores = [s.value for s in nano.score([(i.numpy() * 255).round().astype("uint8") for i in PICTURES])]
    best = PICTURES[int(np.argmax(scores))]
    place = sheet[0, 4 + 16 : 4 + 16 + 96, 4 : 4 + 128]  # 96 x 128 pictures, centred in squares of 128
    assert (place - best).abs().max() < 0.003


def test_the_quality_map_is_the_librarys(host, nano):
    prompt = graph(PICTURES[:1])
    inputs = {"model": ["model", 0], "images": ["images", 0], "window": 48, "overlap": 0.0, "strength": 1.0}
    prompt["m"] = {"class_type": "QSiT_QualityMap", "inputs": inputs}
    prompt |= {f"k{i}": keep(["m", i], name) for i, name in enumerate(("overlay", "map", "mask", "report"))}
    assert host.run(prompt).success
    array = (PICTURES[0].numpy() * 255).round().astype("uint8")
    expected = nano.quality_map(array, window=48, overlap=0.0)
    assert np.abs(arrived("mask")[0][0].numpy() - expected).max() < 1e-5
    assert torch.equal(arrived("overlay")[0], arrived("map")[0])
    assert arrived("map")[0].shape == (1, 96, 128, 3)
    prompt["m"]["inputs"]["window"] = 5
    (error,) = host.run(prompt).errors
    assert "window must be 0 or at least 8" in error["exception_message"]


@pytest.fixture
def output(host):
    folder = host.base / "output"
    yield folder
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def saver(**changes):
    inputs = {"filename_prefix": "t/%level%_%score%", "min_score": 0.0, "csv_file": "t/scores.csv"} | changes
    return graph(PICTURES) | {"save": node("QSiT_SaveWithScore", **inputs)}


def table(path):
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_saved_files_carry_their_score_in_name_metadata_and_table(host, output):
    result = host.run(saver())
    assert result.success and not result.errors
    records = result.shown["score"]["qsit"]
    rows = table(output / "t" / "scores.csv")
    assert [float(r["score"]) for r in rows] == [r["score"] for r in records]
    for image, record, row in zip(PICTURES, records, rows, strict=True):
        assert row["path"].startswith(f"t/{record['level']}_{record['score']:.3f}_")
        with Image.open(output / row["path"]) as saved:
            assert json.loads(saved.text["qsit"]) == record
            assert (np.asarray(saved) == (image.numpy() * 255).round()).all()
    assert [image["filename"] for image in result.shown["save"]["images"]] == [r["path"][2:] for r in rows]


def test_dates_and_values_of_other_nodes_go_into_the_names_and_an_unknown_mark_is_said(host, output):
    prompt = saver(filename_prefix="%date:yyyy%/%QSiT_Score.aggregate%_%Renamed.k%_%None.x%_%score%")
    prompt["rank"] = node("QSiT_Rank", k=7, order="best first", min_score=0.0)
    workflow = {"nodes": [{"id": "rank", "properties": {"Node name for S&R": "Renamed"}}]}
    result = host.run(prompt, {"workflow": workflow})
    assert result.success
    names = [image["filename"] for image in result.shown["save"]["images"]]
    scores = [record["score"] for record in result.shown["score"]["qsit"]]
    assert names == [f"mean_7_%None.x%_{score:.3f}_00001_.png" for score in scores]
    assert {image["subfolder"] for image in result.shown["save"]["images"]} == {str(datetime.now().year)}
    assert result.shown["save"]["text"][0].endswith("no node or widget for %None.x%: it stays in the name")


def test_a_number_in_the_batch_goes_into_the_name_as_save_image_does_it(host, output):
    result = host.run(saver(filename_prefix="t/%batch_num%"))
    names = [image["filename"] for image in result.shown["save"]["images"]]
    assert names == ["0_00001_.png", "1_00001_.png", "2_00001_.png"]


def test_images_below_the_minimum_are_not_saved_and_a_table_is_optional(host, output):
    result = host.run(saver(min_score=1.0, csv_file=""))
    assert result.success
    assert list(output.rglob("*.*")) == []
    assert result.shown["save"]["text"] == ["0 of 3 images saved"]


@pytest.mark.parametrize("changes", [{"csv_file": "../out.csv"}, {"csv_file": "t/out.txt"}])
def test_a_table_elsewhere_is_one_error_and_nothing_is_saved(host, output, changes):
    (error,) = host.run(saver(**changes)).errors
    assert error["node_type"] == "QSiT_SaveWithScore"
    assert list(output.rglob("*.png")) == []


def texts_in(path):
    with Image.open(path) as saved:
        if path.suffix == ".png":
            return {key: json.loads(text) for key, text in saved.text.items()}
        tags = {tag: text for tag, text in saved.getexif().items() if isinstance(text, str)}
        assert tags[0x0110].startswith("prompt:")
        return {key: json.loads(text) for key, text in (text.split(":", 1) for text in tags.values())}


@pytest.mark.parametrize(("kind", "suffix"), [("PNG", ".png"), ("WebP", ".webp"), ("JPEG", ".jpg")])
def test_every_format_carries_the_workflow_and_the_score(host, output, kind, suffix):
    workflow = {"nodes": [{"id": 1}], "name": "h\u00e9"}
    result = host.run(saver(format=kind, quality=100), {"workflow": workflow})
    images = result.shown["save"]["images"]
    assert len(images) == 3 and all(image["filename"].endswith(f"_00001_{suffix}") for image in images)
    for picture, image, record in zip(PICTURES, images, result.shown["score"]["qsit"], strict=True):
        path = output / image["subfolder"] / image["filename"]
        found = texts_in(path)
        assert found["prompt"]["save"]["class_type"] == "QSiT_SaveWithScore"
        assert (found["workflow"], found["qsit"]) == (workflow, record)
        with Image.open(path) as saved:
            assert saved.format == kind.upper()
            difference = np.abs(np.asarray(saved.convert("RGB")).astype(int) - (picture.numpy() * 255).round())
            assert difference.max() == 0 if kind != "JPEG" else difference.mean() < 3


def test_lower_quality_makes_smaller_files(host, output):
    for kind in ("WebP", "JPEG"):
        sizes = []
        for quality in (20, 90):
            result = host.run(saver(format=kind, quality=quality, filename_prefix=f"q/{kind}{quality}"))
            sizes.append((output / "q" / result.shown["save"]["images"][0]["filename"]).stat().st_size)
        assert sizes[0] < sizes[1]


def test_a_workflow_too_long_for_a_jpeg_is_left_out_and_the_text_says_so(host, output):
    result = host.run(saver(format="JPEG"), {"workflow": {"note": "x" * 70_000}})
    (image, *_) = result.shown["save"]["images"]
    assert set(texts_in(output / image["subfolder"] / image["filename"])) == {"prompt", "qsit"}
    assert "workflow left out: a JPEG holds 64 kB" in result.shown["save"]["text"][0]


@pytest.mark.parametrize("prefix", ["", "  ", ".", "./", "a/.."])
def test_a_prefix_that_makes_no_name_is_one_error_and_no_hidden_file_is_saved(host, output, prefix):
    (error,) = host.run(saver(filename_prefix=prefix)).errors
    assert error["node_type"] == "QSiT_SaveWithScore" and "makes no name" in error["exception_message"]
    assert [path for path in output.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"filename_prefix": "../x"}, "filename_prefix must stay inside output/"),
        ({"filename_prefix": "a" * 300}, "shorten it"),
        ({"csv_file": "t/folder.csv"}, "cannot write to folder.csv"),
        ({"csv_file": "t/latin.csv"}, "no table in UTF-8"),
        ({"csv_file": "t/file/x.csv"}, "no folder can be made"),
    ],
)
def test_what_cannot_be_written_is_one_error_nothing_is_saved_and_other_branches_finish(host, output, changes, message):
    (output / "t" / "folder.csv").mkdir(parents=True)
    (output / "t" / "latin.csv").write_bytes("pfad,größe\n".encode("latin-1"))
    (output / "t" / "file").write_bytes(b"")
    result = host.run(saver(**changes) | {"sheet": node("QSiT_Overlay", position="top"), "k": keep(["sheet", 0], "o")})
    (error,) = result.errors
    assert error["node_type"] == "QSiT_SaveWithScore" and message in error["exception_message"]
    assert list(output.rglob("*.png")) == [] and len(arrived("o")) == 1


def test_a_graph_from_before_format_and_quality_saves_png(host, output):
    prompt = saver()
    assert not {"format", "quality"} & prompt["save"]["inputs"].keys()
    assert host.run(prompt).success
    assert len(list(output.rglob("*_00001_.png"))) == 3


def test_of_a_list_the_good_items_are_saved_although_one_is_broken(host, output):
    prompt = saver()
    prompt["images"] = give("images", [PICTURES[:1], torch.full((1, 32, 32, 3), float("nan")), PICTURES[2:]])
    result = host.run(prompt)
    assert len(result.errors) == 1
    assert len(list(output.rglob("*.png"))) == 2


def test_a_table_of_an_older_version_is_one_error_and_nothing_is_saved(host, output):
    (output / "t").mkdir()
    (output / "t" / "scores.csv").write_text(OLDER, encoding="utf-8")
    (error,) = host.run(saver()).errors
    assert "older version" in error["exception_message"]
    assert list(output.rglob("*.png")) == []


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


def test_saved_images_are_added_to_a_table_from_before_rows_had_size_and_time(host, output):
    (output / "t").mkdir()
    (output / "t" / "scores.csv").write_text(",".join(WITHOUT_STATE) + "\n", encoding="utf-8")
    assert host.run(saver()).success
    rows = table(output / "t" / "scores.csv")
    assert len(rows) == 3 and tuple(rows[0]) == WITHOUT_STATE and None not in rows[0]


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
