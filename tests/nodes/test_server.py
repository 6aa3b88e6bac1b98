"""A real ComfyUI server with the pack as a clone in custom_nodes: what a user's browser and API clients meet."""

import json
import time
import urllib.parse
import urllib.request

import pytest
from PIL import Image

from tests.nodes import live
from tests.nodes.graphs import shipped, shown_by
from tests.nodes.hosts import CHECKOUT

pytestmark = pytest.mark.skipif(not live.COMFYUI, reason="needs COMFYUI_PATH, the folder of a ComfyUI checkout")
WORKFLOWS = sorted((CHECKOUT / "example_workflows" / "api").glob("*.json"))
HIDDEN = {"QSiT_Refusal", "QSiT_UntilGoodAgain"}
"""Made while a workflow runs; in no menu, without a help page."""
NEED_WEIGHTS = [path for path in WORKFLOWS if "CheckpointLoaderSimple" in path.read_text(encoding="utf-8")]


def is_hidden(about):
    return bool(about.get("dev_only") or about.get("deprecated"))


def outcome(server, name):
    """Run a shipped workflow as it is; node id -> what it showed."""
    return shown_by(server.run(shipped(name)))


def test_the_pack_is_loaded_with_all_its_nodes(server):
    (line,) = [x for x in server.log().splitlines() if "seconds" in x and "comfyui-q-sit.v1" in x]
    assert "IMPORT FAILED" not in line
    ours = {name for name in server.get("/object_info") if name.startswith("QSiT_")}
    assert len(ours - HIDDEN) == 16
    assert all(is_hidden(about) for about in (server.get("/object_info")[name] for name in HIDDEN))


def test_every_input_and_output_has_a_tooltip_in_object_info(server):
    for name, about in server.get("/object_info").items():
        if not name.startswith("QSiT_"):
            continue
        assert about["description"]
        inputs = about["input"].get("required", {}) | about["input"].get("optional", {})
        assert all(options.get("tooltip") for _, options in inputs.values()), name
        assert all(about["output_tooltips"]), name


@pytest.mark.parametrize("path", [p for p in WORKFLOWS if p not in NEED_WEIGHTS], ids=lambda p: p.stem)
def test_a_shipped_workflow_runs_through_the_api(server, path):
    outputs = outcome(server, path.stem)
    for node, about in json.loads(path.read_text(encoding="utf-8")).items():
        if about["class_type"].startswith("QSiT_") and about["class_type"] != "QSiT_UntilGoodStart":
            shown = outputs[node]
            assert shown["text"][0] and not any("error" in record for record in shown["qsit"])


@pytest.mark.parametrize("path", NEED_WEIGHTS, ids=lambda p: p.stem)
def test_of_a_workflow_that_generates_only_the_diffusion_weights_are_missing(server, path):
    status, answer = server.post("/prompt", {"prompt": json.loads(path.read_text(encoding="utf-8"))})
    assert status == 400
    kinds = {e["type"] for about in answer["node_errors"].values() for e in about["errors"]}
    names = {about["class_type"] for about in answer["node_errors"].values()}
    assert (kinds, names) == ({"value_not_in_list"}, {"CheckpointLoaderSimple"})


def test_a_missing_model_is_reported_at_once_and_other_branches_run(server):
    prompt = shipped("score_one_image")
    prompt["7"] = {"class_type": "QSiT_LoadModel", "inputs": prompt["1"]["inputs"] | {"model_name": "qsit/gone"}}
    prompt["8"] = {"class_type": "QSiT_Score", "inputs": prompt["5"]["inputs"] | {"model": ["7", 0]}}
    status, answer = server.post("/prompt", {"prompt": prompt})
    assert status == 200
    (error,) = answer["node_errors"]["7"]["errors"]
    assert error["details"].startswith("model_name - choose another model_name")
    assert "no model 'qsit/gone' here" in error["details"]


def test_a_run_with_bad_input_sends_one_error_and_finishes_its_other_branches(server):
    """Two scores for one image: the gate cannot work, but the overlay beside it can."""
    prompt = shipped("overlay_and_contact_sheet")
    gate = {"images": ["2", 0], "scores": ["5", 5], "threshold": 0.5, "mode": "per image"}
    prompt["19"] = {"class_type": "QSiT_DemoPhoto", "inputs": {"picture": "sharp", "seed": 0}}
    gate["images"] = ["19", 0]
    prompt["20"] = {"class_type": "QSiT_Gate", "inputs": gate | {"empty_side": "stop silently"}}
    for node, slot in (("21", 0), ("22", 1)):
        inputs = {"images": ["20", slot], "filename_prefix": "never"}
        prompt[node] = {"class_type": "SaveImage", "inputs": inputs}
    found = server.watched(prompt)
    (error,) = [event["data"] for event in found if event["type"] == "execution_error"]
    assert (error["node_id"], error["node_type"]) == ("20", "QSiT_Gate")
    assert error["exception_message"].startswith("2 scores for 1 images")
    assert error["exception_message"].strip().endswith("(Q-SiT Gate, node 20)")
    shown = {event["data"]["node"]: event["data"]["output"] for event in found if event["type"] == "executed"}
    assert shown["8"]["images"] and shown["9"]["images"]
    assert "21" not in shown and "22" not in shown
    assert "2 scores for 1 images" in shown["20"]["text"][0]
    (number,) = {event["data"]["prompt_id"] for event in found if event["type"] == "execution_start"}
    history = server.history(number)
    assert history["status"]["status_str"] == "error" and history["outputs"]["8"]["images"]


def test_a_saved_file_carries_the_workflow_and_the_score(server):
    prompt = shipped("save_with_score")
    prompt["6"]["inputs"] |= {"filename_prefix": "with/%level%_%score%", "csv_file": ""}
    saved = server.run(prompt)["outputs"]["6"]["images"]
    assert len(saved) == 2
    for image in saved:
        with Image.open(server.base / "output" / image["subfolder"] / image["filename"]) as file:
            assert json.loads(file.text["prompt"])["6"]["class_type"] == "QSiT_SaveWithScore"
            assert f"_{json.loads(file.text['qsit'])['score']:.3f}_" in image["filename"]


def test_an_interrupted_folder_keeps_its_rows_and_the_next_run_finishes_it(server):
    many, table = server.base / "input" / "many", server.base / "output" / "many.csv"
    many.mkdir()
    with Image.open(CHECKOUT / "qsit_plugin" / "demo" / "astronaut.jpg") as photo:
        for number in range(40):
            photo.resize((256 + number, 256)).save(many / f"{number:02}.png", compress_level=1)
    prompt = shipped("score_a_folder")
    prompt["2"]["inputs"] |= {"folder": "many", "csv_file": "many.csv"}
    number = server.post("/prompt", {"prompt": prompt})[1]["prompt_id"]
    while not table.exists() or table.read_text(encoding="utf-8").count("\n") < 3:
        time.sleep(0.02)
    server.post("/interrupt", {})
    while not server.get(f"/history/{number}"):
        time.sleep(0.05)
    done = table.read_text(encoding="utf-8").count("\n") - 1
    assert 2 <= done < 40
    history = server.run(prompt)
    assert history["outputs"]["2"]["qsit"][0]["scored"] == 40 - done
    rows = table.read_text(encoding="utf-8").splitlines()[1:]
    assert len(rows) == len({row.split(",")[0] for row in rows}) == 40


def test_a_folder_of_the_output_is_described_and_parted_and_the_parting_is_undone(server):
    photos = server.base / "output" / "made"
    photos.mkdir()
    with Image.open(CHECKOUT / "qsit_plugin" / "demo" / "astronaut.jpg") as photo:
        photo.save(photos / "good.png")
        photo.resize((16, 16)).resize((256, 256)).save(photos / "bad.png")
    prompt = shipped("score_a_folder")
    prompt["2"]["inputs"] |= {"source": "output", "folder": "made", "csv_file": "made.csv", "into": "parted"}
    asked = {"explain": ".txt beside the image", "sidecars": ".xmp", "passed_and_failed": "move", "threshold": 0.5}
    prompt["2"]["inputs"] |= asked
    text = server.run(prompt)["outputs"]["2"]["text"][0]
    assert "1 passed, 1 failed" in text and "6 files moved" in text
    names = {path.name for path in (server.base / "output" / "parted").rglob("*") if path.is_file()}
    assert names == {f"{n}{e}" for n in ("good", "bad") for e in (".png", ".txt", ".png.xmp")} | {"manifest-0001.jsonl"}
    assert not any(photos.iterdir())
    prompt["2"]["inputs"]["passed_and_failed"] = "undo the last move"
    assert "6 files moved back" in server.run(prompt)["outputs"]["2"]["text"][0]
    assert len(list(photos.iterdir())) == 6


def test_after_freeing_memory_a_workflow_runs_again(server):
    prompt = shipped("score_one_image")
    first = server.run(prompt)["outputs"]["5"]["qsit"]
    assert server.post("/free", {"unload_models": True, "free_memory": True})[0] == 200
    time.sleep(1.5)
    assert server.run(prompt)["outputs"]["5"]["qsit"] == first


def test_help_pages_and_translations_are_served(server):
    for node in (name for name in server.get("/object_info") if name.startswith("QSiT_") and name not in HIDDEN):
        assert server.get(f"/extensions/comfyui-q-sit.v1/docs/{node}.md").startswith("# ")
    translations = server.get("/i18n")
    assert "QSiT_Score" in translations["zh"]["nodeDefs"]
    assert "QSiT_Score" in translations["en"]["nodeDefs"]


def test_the_page_is_given_the_script_that_keeps_texts_on_the_nodes(server):
    (script,) = [path for path in server.get("/extensions") if "comfyui-q-sit.v1" in path]
    assert script.endswith("/qsit.js") and "registerExtension" in server.get(script)


def test_the_list_of_templates_has_every_workflow_with_its_picture(server):
    names = server.get("/api/workflow_templates")["comfyui-q-sit.v1"]
    assert sorted(names) == sorted(path.stem for path in (CHECKOUT / "example_workflows").glob("*.json"))
    for name in names:
        picture = f"{server.url}/api/workflow_templates/comfyui-q-sit.v1/{urllib.parse.quote(name)}.jpg"
        with urllib.request.urlopen(picture) as answer:
            assert answer.headers["Content-Type"] == "image/jpeg"
