"""What each example workflow promises, on a real server that nobody has touched."""

import json

import pytest
from PIL import Image, ImageStat

from tests.nodes import live
from tests.nodes.graphs import GOOD, GREAT, LOOP_GOOD, OK, shipped, shown_by, small

pytestmark = pytest.mark.skipif(not live.COMFYUI, reason="needs COMFYUI_PATH, the folder of a ComfyUI checkout")


def outcome(server, name):
    """Run a shipped workflow as it is; node id -> what it showed."""
    return shown_by(server.run(shipped(name)))


def test_the_sharp_photo_is_good_and_its_blurred_twin_is_not(server):
    outputs = outcome(server, "gate_good_and_bad")
    sharp, blurred = (record["score"] for record in outputs["5"]["qsit"])
    assert blurred < GOOD <= sharp
    assert [len(outputs[node]["images"]) for node in ("7", "8")] == [1, 1]
    assert outcome(server, "first_good_enough_of_two")["5"]["qsit"][0]["taken"] == 1
    assert outcome(server, "keep_the_best")["6"]["qsit"] == [{"kept": [0]}]


def test_great_ok_and_bad_each_get_one_picture(server):
    outputs = outcome(server, "great_ok_or_bad")
    great, ok, bad = (record["score"] for record in outputs["5"]["qsit"])
    assert bad < OK <= ok < GREAT <= great
    assert [len(outputs[node]["images"]) for node in ("8", "9", "10")] == [1, 1, 1]


def test_only_what_passed_the_gate_is_upscaled(server):
    outputs = outcome(server, "gate_then_upscale")
    (image,) = outputs["8"]["images"]
    with Image.open(server.base / "output" / image["subfolder"] / image["filename"]) as file:
        assert file.size == (1024, 1024)
    assert len(outputs["9"]["images"]) == 1


def test_failures_are_saved_and_put_in_words(server):
    outputs = outcome(server, "explain_failures")
    assert outputs["6"]["qsit"] == [{"passed": [0], "rejected": [1]}]
    assert "Blur is strongly visible" in outputs["8"]["text"][0]
    (row,) = outputs["9"]["qsit"]
    assert row["score"] < GOOD and (server.base / "output" / row["path"]).is_file()


def test_the_sharp_photo_is_the_better_of_two(server):
    outputs = outcome(server, "compare_two_images")
    (pair,) = outputs["5"]["qsit"]
    assert pair["a"]["score"] > pair["b"]["score"] and outputs["7"]["text"][0].splitlines()[-1].startswith("1: A")


def test_a_sharp_photo_has_a_high_score_and_is_put_in_words(server):
    (record,) = outcome(server, "score_one_image")["5"]["qsit"]
    assert record["score"] >= GREAT
    outputs = outcome(server, "explain_one_image")
    assert "No distortion is visible" in outputs["7"]["text"][0]
    aspects = ("sharpness", "noise", "exposure", "color", "contrast", "compression")
    assert all(aspect in outputs["8"]["text"][0] for aspect in aspects)


def test_scores_are_drawn_on_the_photos_and_on_a_sheet(server):
    outputs = outcome(server, "overlay_and_contact_sheet")
    assert [len(outputs[node]["images"]) for node in ("8", "9")] == [2, 1]


def test_files_are_saved_with_their_scores_and_a_folder_gets_its_table(server):
    rows = outcome(server, "save_with_score")["6"]["qsit"]
    assert all((server.base / "output" / row["path"]).is_file() for row in rows) and len(rows) == 2
    assert outcome(server, "score_a_folder")["2"]["qsit"][0]["scored"] >= 1
    assert (server.base / "output" / "qsit" / "folder.csv").is_file()


def test_a_folder_is_curated_into_passed_and_failed_with_a_table(server):
    assert "1 passed, 1 failed" in outcome(server, "curate_a_folder_for_a_lora")["2"]["text"][0]
    folder = server.base / "output" / "lora"
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert {"passed/astronaut.jpg", "failed/astronaut-blurred.jpg", "scores.csv"} < names


def test_the_map_stands_beside_its_photo_and_is_green_where_it_is_sharp_and_red_where_blurred(server):
    outputs = outcome(server, "quality_map")
    assert outputs["5"]["qsit"][0]["lowest"] < OK < GOOD < outputs["5"]["qsit"][0]["highest"]
    (image,) = outputs["6"]["images"]
    with Image.open(server.base / "temp" / image["subfolder"] / image["filename"]) as file:
        photo, covered = file.crop((0, 0, 512, 512)), file.crop((528, 0, 1040, 512))
        assert file.width > 1040, "no legend"
    sharp, blurred = ((0, 0, 200, 512), (312, 0, 512, 512))
    more_green = [_green(covered.crop(side)) - _green(photo.crop(side)) for side in (sharp, blurred)]
    assert more_green[0] > 0 > more_green[1]


def _green(picture):
    """How much greener than red it is, on average."""
    red, green, _ = ImageStat.Stat(picture.convert("RGB")).mean
    return green - red


def test_the_loop_ends_with_the_first_try_that_is_good_enough_and_its_seed_is_in_the_file(server):
    outputs = outcome(server, "again_until_good")
    (about,) = outputs["5"]["qsit"]
    assert about["passed"] and about["tries"] == len(about["scores"]) == 3
    assert max(about["scores"][:2]) < LOOP_GOOD <= about["scores"][2]
    (image,) = outputs["6"]["images"]
    with Image.open(server.base / "output" / image["subfolder"] / image["filename"]) as file:
        record = json.loads(file.text["qsit"])
    assert (record["seed"], record["try"], record["score"]) == (113, 3, about["scores"][2])
    assert outputs["7"]["text"][0].splitlines()[-1] == "taken: try 3, seed 113"


def test_the_best_of_four_generated_images_is_saved(server, checkpoints):
    outputs = server.run(small(shipped("generate_and_keep_the_best"), checkpoints))["outputs"]
    values = [record["score"] for record in outputs["5"]["qsit"]]
    assert len(values) == 4 and len(set(values)) > 1
    assert outputs["6"]["qsit"] == [{"kept": [values.index(max(values))]}]
    assert len(outputs["7"]["images"]) == 1


def test_four_seeds_are_tried_and_the_first_good_enough_is_saved(server, checkpoints):
    prompt = small(shipped("generate_until_good_enough"), checkpoints)
    prompt["6"]["inputs"]["threshold"] = 1.0
    scores = server.run(prompt)["outputs"]["6"]["qsit"][0]["scores"]
    assert len(scores) == 4
    order = sorted(range(4), key=lambda i: scores[i])  # worst first, and only the third good enough
    links = [prompt["6"]["inputs"][f"candidate_{i + 1}"] for i in order]
    prompt["6"]["inputs"] |= {f"candidate_{i}": link for i, link in enumerate(links, 1)}
    prompt["6"]["inputs"]["threshold"] = scores[order[2]]
    outputs = server.run(prompt)["outputs"]
    assert outputs["6"]["qsit"] == [{"scores": [scores[i] for i in order[:3]], "taken": 2}]
    assert len(outputs["7"]["images"]) == 1


def test_two_checkpoints_are_compared_on_the_same_seeds(server, checkpoints):
    outputs = server.run(small(shipped("compare_two_checkpoints"), checkpoints))["outputs"]
    pairs = outputs["5"]["qsit"]
    assert len(pairs) == 4 and all(pair["a"]["score"] != pair["b"]["score"] for pair in pairs)
    assert len(outputs["8"]["images"]) == 4
    assert outputs["9"]["text"][0].splitlines()[-1].startswith("all 4 pairs: A is better in ")
