"""What Score Folder does beside the table: words, sidecars, and copies or moves that can be taken back."""

import csv
import json
import shutil
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from PIL import Image

import qsit_plugin
from tests.nodes.graphs import GOOD, graph
from tests.nodes.helpers import batch, keep, photo

PICTURES = batch(photo(0), photo(0, blur=True))
TABLE = "t.csv"


@pytest.fixture(params=["input", "output"])
def photos(request, host):
    """A sharp picture and its blurred twin in a folder of the input or the output folder."""
    folder = host.base / request.param / "photos"
    (folder / "deep").mkdir(parents=True)
    for name, image in zip(("sharp.png", "deep/blurred.png"), PICTURES, strict=True):
        Image.fromarray((image.numpy() * 255).round().astype("uint8")).save(folder / name)
    yield folder
    for place in (host.base / "output", host.base / "input"):
        shutil.rmtree(place)
        place.mkdir()


def run(host, photos, **changes):
    inputs = {"model": ["model", 0], "source": photos.parent.name, "folder": "photos", "recursive": True}
    prompt = graph(PICTURES)
    del prompt["score"], prompt["images"]
    prompt["folder"] = {"class_type": "QSiT_ScoreFolder", "inputs": inputs | {"csv_file": TABLE} | changes}
    return host.run(prompt | {"k": keep(["folder", 3], "report")})


def rows(host):
    with (host.base / "output" / TABLE).open(encoding="utf-8", newline="") as stream:
        return {row["path"]: row for row in csv.DictReader(stream)}


def said(result):
    return result.shown["folder"]["text"][0]


def files(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def between(host):
    """A threshold that the one image reaches and the other does not."""
    scores = sorted(float(row["score"]) for row in rows(host).values())
    assert len(scores) == 2 and scores[0] < scores[1]
    return sum(scores) / 2


def stem_of(choose, host):
    """``sharp`` or ``deep/blurred``: which of them has the highest or the lowest score."""
    path = choose(rows(host).items(), key=lambda row: float(row[1]["score"]))[0]
    return "sharp" if path.endswith("sharp.png") else "deep/blurred"


def test_words_are_written_beside_each_image_and_a_caption_that_is_there_stays(host, photos, nano):
    (photos / "sharp.txt").write_text("my caption", encoding="utf-8")
    result = run(host, photos, explain=".txt beside the image")
    assert result.success and "1 put in words, 1 had words already" in said(result)
    assert (photos / "sharp.txt").read_text(encoding="utf-8") == "my caption"
    expected = nano.explain(photos / "deep" / "blurred.png", max_new_tokens=200).text
    assert (photos / "deep" / "blurred.txt").read_text(encoding="utf-8") == expected + "\n"


def test_words_go_into_the_table_also_for_images_that_were_scored_before(host, photos, nano):
    run(host, photos)
    result = run(host, photos, explain="column of the table")
    assert said(result).startswith("0 scored, 0 failed, 2 were in the table") and "2 put in words" in said(result)
    found = rows(host)
    assert found["photos/sharp.png"]["explanation"] == nano.explain(photos / "sharp.png", max_new_tokens=200).text
    assert found["photos/deep/blurred.png"]["explanation"] and len(found) == 2
    shutil.copy(photos / "sharp.png", photos / "third.png")
    run(host, photos)  # the column stays when the table is continued without words
    assert len(rows(host)) == 3 and rows(host)["photos/sharp.png"]["explanation"]
    assert "1 put in words, 2 had words already" in said(run(host, photos, explain="column of the table"))


def test_sidecars_carry_the_score_and_one_that_is_there_stays(host, photos):
    (photos / "sharp.png.xmp").write_text("mine", encoding="utf-8")
    assert "1 .xmp files written, 1 were there" in said(run(host, photos, sidecars=".xmp"))
    assert (photos / "sharp.png.xmp").read_text(encoding="utf-8") == "mine"
    text = (photos / "deep" / "blurred.png.xmp").read_text(encoding="utf-8")
    score = float(rows(host)["photos/deep/blurred.png"]["score"])
    assert ET.fromstring(text) is not None and f'qsit:Score="{score:.6f}"' in text
    assert "2 .json files written" in said(run(host, photos, sidecars=".json"))
    record = json.loads((photos / "deep" / "blurred.png.json").read_text(encoding="utf-8"))
    assert record["score"] == score and record["width"] == 128 and record["level"] and record["path"]


def test_passed_and_failed_are_copied_with_their_small_files_and_nothing_else_changes(host, photos):
    run(host, photos, explain=".txt beside the image", sidecars=".xmp")
    before = files(photos)
    result = run(host, photos, passed_and_failed="copy", threshold=between(host), into="sorted")
    assert result.success and "1 passed, 1 failed" in said(result) and "6 files copied" in said(result)
    place = host.base / "output" / "sorted"
    copied = files(place / "passed") | files(place / "failed")
    assert set(files(place / "passed")) == {f"photos/{stem_of(max, host)}{end}" for end in (".png", ".txt", ".png.xmp")}
    assert copied == {f"photos/{name}": content for name, content in before.items()}
    assert files(photos) == before
    again = run(host, photos, passed_and_failed="copy", threshold=between(host), into="sorted")
    assert "is there already" in said(again) and files(photos) == before
    assert len(list(place.glob("manifest-*.jsonl"))) == 1 and len(rows(host)) == 2, "copies are not scored"
    shutil.rmtree(place / "passed")  # by the user: the next run is not answered from the cache
    assert "3 files copied" in said(run(host, photos, passed_and_failed="copy", threshold=between(host), into="sorted"))


def test_a_move_stays_in_the_output_folder_and_can_be_taken_back(host, photos):
    run(host, photos, sidecars=".json")
    before = files(photos)
    result = run(host, photos, passed_and_failed="move", threshold=between(host), into="sorted")
    if photos.parent.name == "input":
        assert said(result).startswith("choose 'copy' for passed_and_failed") and files(photos) == before
        return
    place = host.base / "output" / "sorted"
    assert "4 files moved" in said(result) and files(photos) == {}
    assert set(files(place / "failed")) == {f"photos/{stem_of(min, host)}{end}" for end in (".png", ".png.json")}
    empty = run(host, photos, passed_and_failed="move", threshold=0.5, into="sorted")
    assert empty.success and not empty.errors and "0 passed, 0 failed" in said(empty)
    back = run(host, photos, passed_and_failed="undo the last move", into="sorted")
    assert "4 files moved back, by manifest-0001.jsonl" in said(back) and files(photos) == before
    assert "nothing to move back" in said(run(host, photos, passed_and_failed="undo the last move", into="sorted"))
    assert said(run(host, photos)).startswith("0 scored, 0 failed, 2 were in the table")


def test_undoing_deletes_no_copies(host, photos):
    run(host, photos, passed_and_failed="copy", into="sorted")
    before = files(host.base / "output")
    assert "nothing to move back" in said(run(host, photos, passed_and_failed="undo the last move", into="sorted"))
    assert files(host.base / "output") == before


def test_a_file_that_changed_since_the_move_is_left_where_it_is(host, photos):
    if photos.parent.name == "input":
        return
    run(host, photos, passed_and_failed="move", threshold=0.0, into="sorted")
    moved = host.base / "output" / "sorted" / "passed" / "photos" / "sharp.png"
    moved.write_bytes(b"edited")
    text = said(run(host, photos, passed_and_failed="undo the last move", into="sorted"))
    assert "1 files moved back" in text and "changed since it was moved" in text and moved.read_bytes() == b"edited"


def test_a_cancelled_move_can_be_taken_back(host, photos, monkeypatch):
    if photos.parent.name == "input":
        return
    run(host, photos)
    before = files(photos)
    import comfy.model_management as mm

    from qsit_plugin.nodes import folder_node, parting

    def stops(*args):
        raise mm.InterruptProcessingException

    real = parting.part
    monkeypatch.setattr(folder_node, "part", lambda *args: real(*args[:-1], stops))
    run(host, photos, passed_and_failed="move", into="sorted")
    assert len(files(photos)) == 1
    assert "1 files moved back" in said(run(host, photos, passed_and_failed="undo the last move", into="sorted"))
    assert files(photos) == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"into": "../elsewhere", "passed_and_failed": "copy"}, "into must stay inside output/"),
        ({"into": "", "passed_and_failed": "copy"}, "into must name a folder below output/"),
    ],
)
def test_a_place_outside_is_one_error_before_anything_is_scored(host, photos, changes, message):
    (error,) = run(host, photos, **changes).errors
    assert message in error["exception_message"] and not (host.base / "output" / TABLE).exists()


def test_the_packs_own_photos_are_copied_and_nothing_is_written_beside_them(host, photos, nano):
    demo = Path(qsit_plugin.__file__).parent / "demo"
    before = files(demo)
    asked = {"source": "demo photos", "folder": "", "into": "sorted"}
    assert "1 passed, 1 failed" in said(run(host, photos, **asked, passed_and_failed="copy", threshold=GOOD))
    sorted_into = files(host.base / "output" / "sorted")
    assert {"passed/astronaut.jpg", "failed/astronaut-blurred.jpg"} < set(sorted_into)
    for changes in ({"sidecars": ".xmp"}, {"explain": ".txt beside the image"}, {"passed_and_failed": "move"}):
        assert len(run(host, photos, **asked, **changes).errors) == 1
    assert files(demo) == before


def test_a_graph_from_before_these_inputs_runs_as_it_did(host, photos):
    before = files(photos)
    result = run(host, photos)
    assert said(result) == "2 scored, 0 failed, 0 were in the table" and files(photos) == before
    assert set(files(host.base / "output")) - {f"photos/{name}" for name in before} == {TABLE}
