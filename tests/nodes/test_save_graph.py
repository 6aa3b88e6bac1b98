"""Save with Score, run by a host's executor."""

import json
from datetime import datetime

import numpy as np
import pytest
import torch
from PIL import Image

from tests.nodes.graphs import arrived
from tests.nodes.helpers import give, keep
from tests.nodes.saving import OLDER, PICTURES, WITHOUT_STATE, saver, scored, table


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
    prompt["rank"] = scored("QSiT_Rank", k=7, order="best first", min_score=0.0)
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
    result = host.run(
        saver(**changes) | {"sheet": scored("QSiT_Overlay", position="top"), "k": keep(["sheet", 0], "o")}
    )
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


def test_saved_images_are_added_to_a_table_from_before_rows_had_size_and_time(host, output):
    (output / "t").mkdir()
    (output / "t" / "scores.csv").write_text(",".join(WITHOUT_STATE) + "\n", encoding="utf-8")
    assert host.run(saver()).success
    rows = table(output / "t" / "scores.csv")
    assert len(rows) == 3 and tuple(rows[0]) == WITHOUT_STATE and None not in rows[0]
