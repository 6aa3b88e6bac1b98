"""A real ComfyUI server with the pack as a clone in custom_nodes: what a user's browser and API clients meet."""

import asyncio
import json
import shutil
import subprocess
import sys
import time
import urllib.parse
import urllib.request

import pytest
from PIL import Image

from tests.nodes import live
from tests.nodes.graphs import GOOD, GREAT, LOOP_GOOD, OK
from tests.nodes.hosts import CHECKOUT

pytestmark = pytest.mark.skipif(not live.COMFYUI, reason="needs COMFYUI_PATH, the folder of a ComfyUI checkout")
WORKFLOWS = sorted((CHECKOUT / "example_workflows" / "api").glob("*.json"))
HIDDEN = {"QSiT_Refusal", "QSiT_UntilGoodAgain"}
"""Made while a workflow runs; in no menu, without a help page."""
NEED_WEIGHTS = [path for path in WORKFLOWS if "CheckpointLoaderSimple" in path.read_text(encoding="utf-8")]


def is_hidden(about):
    return bool(about.get("dev_only") or about.get("deprecated"))


def outcome(server, name, **changes):
    """Run a shipped workflow as it is; node id -> what it showed, a loop's under the id of its end node."""
    prompt = json.loads((CHECKOUT / "example_workflows" / "api" / f"{name}.json").read_text(encoding="utf-8"))
    for node, inputs in changes.items():
        prompt[node.removeprefix("node_")]["inputs"] |= inputs
    history = server.run(prompt)
    assert history["status"]["status_str"] == "success", history["status"]
    return {history["meta"][node]["display_node"]: shown for node, shown in history["outputs"].items()}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    base = tmp_path_factory.mktemp("server")
    live.put_pack(base)
    live.put_example(base)
    with live.started(base) as running:
        yield running


def test_the_pack_is_loaded_in_under_0_3_seconds_with_all_its_nodes(server):
    (line,) = [x for x in server.log().splitlines() if "seconds" in x and "comfyui-q-sit.v1" in x]
    assert "IMPORT FAILED" not in line
    assert float(line.split("seconds")[0].split()[-1]) < 0.3, line
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


@pytest.fixture(scope="module")
def checkpoints(server):
    """Two Stable Diffusion checkpoints that know nothing, where ComfyUI looks for them."""
    folder = server.base / "models" / "checkpoints"
    folder.mkdir(parents=True)
    script, names = CHECKOUT / "tests" / "nodes" / "tiny_diffusion.py", ["one.safetensors", "two.safetensors"]
    for seed, name in enumerate(names):
        subprocess.run([sys.executable, str(script), live.COMFYUI, str(folder / name), str(seed)], check=True)
    yield names
    shutil.rmtree(folder)  # 600 MB: the size of the text encoder is fixed


def small(name, checkpoints):
    """A workflow that generates, with the checkpoints at hand, two steps and pictures of 64x64."""
    path = CHECKOUT / "example_workflows" / "api" / f"{name}.json"
    prompt, left = json.loads(path.read_text(encoding="utf-8")), iter(checkpoints)
    changes = {"KSampler": {"steps": 2}, "EmptyLatentImage": {"width": 64, "height": 64}}
    for about in prompt.values():
        about["inputs"] |= changes.get(about["class_type"], {})
        if about["class_type"] == "CheckpointLoaderSimple":
            about["inputs"]["ckpt_name"] = next(left)
    return prompt


def test_the_best_of_four_generated_images_is_saved(server, checkpoints):
    outputs = server.run(small("generate_and_keep_the_best", checkpoints))["outputs"]
    values = [record["score"] for record in outputs["5"]["qsit"]]
    assert len(values) == 4 and len(set(values)) > 1
    assert outputs["6"]["qsit"] == [{"kept": [values.index(max(values))]}]
    assert len(outputs["7"]["images"]) == 1


def test_four_seeds_are_tried_and_the_first_good_enough_is_saved(server, checkpoints):
    prompt = small("generate_until_good_enough", checkpoints)
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
    outputs = server.run(small("compare_two_checkpoints", checkpoints))["outputs"]
    pairs = outputs["5"]["qsit"]
    assert len(pairs) == 4 and all(pair["a"]["score"] != pair["b"]["score"] for pair in pairs)
    assert len(outputs["8"]["images"]) == 4
    assert outputs["9"]["text"][0].splitlines()[-1].startswith("all 4 pairs: A is better in ")


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


def test_a_loop_that_may_not_fail_makes_the_run_an_error_for_programs(server):
    path = CHECKOUT / "example_workflows" / "api" / "again_until_good.json"
    prompt = json.loads(path.read_text(encoding="utf-8"))
    prompt["5"]["inputs"] |= {"max_tries": 2, "if_none": "error"}
    prompt["20"] = {"class_type": "QSiT_DemoPhoto", "inputs": {"picture": "sharp", "seed": 0}}
    prompt["21"] = {"class_type": "PreviewImage", "inputs": {"images": ["20", 0]}}
    history = server.run(prompt)
    assert history["status"]["status_str"] == "error" and history["outputs"]["21"]["images"]
    (error,) = [about for kind, about in history["status"]["messages"] if kind == "execution_error"]
    assert error["node_id"] == "5" and error["exception_message"].startswith("none of 2 tries reaches 0.6 (2 tries)")


def test_great_ok_and_bad_each_get_one_picture(server):
    outputs = outcome(server, "great_ok_or_bad")
    great, ok, bad = (record["score"] for record in outputs["5"]["qsit"])
    assert bad < OK <= ok < GREAT <= great
    assert [len(outputs[node]["images"]) for node in ("8", "9", "10")] == [1, 1, 1]


def test_the_sharp_photo_is_good_and_its_blurred_twin_is_not(server):
    outputs = outcome(server, "gate_good_and_bad")
    sharp, blurred = (record["score"] for record in outputs["5"]["qsit"])
    assert blurred < GOOD <= sharp
    assert [len(outputs[node]["images"]) for node in ("7", "8")] == [1, 1]
    assert outcome(server, "first_good_enough_of_two")["5"]["qsit"][0]["taken"] == 1
    assert outcome(server, "keep_the_best")["6"]["qsit"] == [{"kept": [0]}]


LOOPS = {
    "KSampler": {},
    "a chain of RandomNoise and SamplerCustomAdvanced": {
        "21": {"class_type": "SamplerCustomAdvanced", "inputs": {"latent_image": ["13", 0]}},
        "30": {"class_type": "RandomNoise", "inputs": {"noise_seed": ["2", 1]}},
        "31": {"class_type": "BasicGuider", "inputs": {"model": ["10", 0], "conditioning": ["11", 0]}},
        "32": {"class_type": "KSamplerSelect", "inputs": {"sampler_name": "euler"}},
        "33": {
            "class_type": "BasicScheduler",
            "inputs": {"model": ["10", 0], "scheduler": "normal", "steps": 2, "denoise": 1.0},
        },
    },
    "an upscaler inside": {
        "40": {
            "class_type": "ImageScaleBy",
            "inputs": {"image": ["22", 0], "upscale_method": "lanczos", "scale_by": 2.0},
        }
    },
}


@pytest.mark.parametrize("inside", LOOPS)
def test_the_loop_gives_the_best_of_its_tries_as_the_score_node_rates_the_same_seeds_alone(server, checkpoints, inside):
    prompt = small("generate_again_until_good", checkpoints)
    prompt |= json.loads(json.dumps(LOOPS[inside]))
    if "30" in prompt:
        prompt["21"]["inputs"] |= {"noise": ["30", 0], "guider": ["31", 0], "sampler": ["32", 0], "sigmas": ["33", 0]}
    image = ["40", 0] if "40" in prompt else ["22", 0]
    prompt["5"]["inputs"] |= {"images": image, "threshold": 1.0, "max_tries": 3}
    history = server.run(prompt)
    shown = {history["meta"][node]["display_node"]: shown for node, shown in history["outputs"].items()}
    (about,) = shown["5"]["qsit"]
    alone = []
    for seed in (1, 2, 3):
        single = json.loads(json.dumps(prompt).replace('["2", 1]', str(seed)))
        del single["2"], single["5"], single["6"], single["7"]
        inputs = {"model": ["1", 0], "images": image, "aggregate": "mean"}
        single["9"] = {"class_type": "QSiT_Score", "inputs": inputs}
        alone.append(server.run(single)["outputs"]["9"]["qsit"][0]["score"])
    assert about["scores"] == pytest.approx(alone, abs=1e-6)
    assert about["seed"] == 1 + alone.index(max(alone)) and not about["passed"]


def test_only_what_passed_the_gate_is_upscaled(server):
    path = CHECKOUT / "example_workflows" / "api" / "gate_then_upscale.json"
    outputs = server.run(json.loads(path.read_text(encoding="utf-8")))["outputs"]
    (image,) = outputs["8"]["images"]
    with Image.open(server.base / "output" / image["subfolder"] / image["filename"]) as file:
        assert file.size == (1024, 1024)
    assert len(outputs["9"]["images"]) == 1


def test_failures_are_saved_and_put_in_words(server):
    path = CHECKOUT / "example_workflows" / "api" / "explain_failures.json"
    outputs = server.run(json.loads(path.read_text(encoding="utf-8")))["outputs"]
    assert outputs["6"]["qsit"] == [{"passed": [0], "rejected": [1]}]
    assert "Blur is strongly visible" in outputs["8"]["text"][0]
    (row,) = outputs["9"]["qsit"]
    assert row["score"] < GOOD and (server.base / "output" / row["path"]).is_file()


def test_a_missing_model_is_reported_at_once_and_other_branches_run(server):
    prompt = json.loads((CHECKOUT / "example_workflows" / "api" / "score_one_image.json").read_text(encoding="utf-8"))
    prompt["7"] = {"class_type": "QSiT_LoadModel", "inputs": prompt["1"]["inputs"] | {"model_name": "qsit/gone"}}
    prompt["8"] = {"class_type": "QSiT_Score", "inputs": prompt["5"]["inputs"] | {"model": ["7", 0]}}
    status, answer = server.post("/prompt", {"prompt": prompt})
    assert status == 200
    (error,) = answer["node_errors"]["7"]["errors"]
    assert error["details"].startswith("model_name - choose another model_name")
    assert "no model 'qsit/gone' here" in error["details"]


def test_a_run_with_bad_input_sends_one_error_and_finishes_its_other_branches(server):
    """Two scores for one image: the gate cannot work, but the overlay beside it can."""
    aiohttp = pytest.importorskip("aiohttp")  # ComfyUI's own websocket library
    path = CHECKOUT / "example_workflows" / "api" / "overlay_and_contact_sheet.json"
    prompt = json.loads(path.read_text(encoding="utf-8"))
    gate = {"images": ["2", 0], "scores": ["5", 5], "threshold": 0.5, "mode": "per image"}
    prompt["19"] = {"class_type": "QSiT_DemoPhoto", "inputs": {"picture": "sharp", "seed": 0}}
    gate["images"] = ["19", 0]
    prompt["20"] = {"class_type": "QSiT_Gate", "inputs": gate | {"empty_side": "stop silently"}}
    for node, slot in (("21", 0), ("22", 1)):
        inputs = {"images": ["20", slot], "filename_prefix": "never"}
        prompt[node] = {"class_type": "SaveImage", "inputs": inputs}

    async def events():
        url, found = server.url.replace("http", "ws") + "/ws?clientId=test", []
        async with aiohttp.ClientSession() as session, session.ws_connect(url) as socket:
            async with session.post(server.url + "/prompt", json={"prompt": prompt, "client_id": "test"}) as answer:
                assert answer.status == 200
            async for message in socket:
                if message.type == aiohttp.WSMsgType.TEXT:
                    found.append(json.loads(message.data))
                    if found[-1]["type"] in ("execution_success", "execution_interrupted", "execution_error"):
                        return found

    found = asyncio.run(asyncio.wait_for(events(), 60))
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
    path = CHECKOUT / "example_workflows" / "api" / "save_with_score.json"
    prompt = json.loads(path.read_text(encoding="utf-8"))
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
    path = CHECKOUT / "example_workflows" / "api" / "score_a_folder.json"
    prompt = json.loads(path.read_text(encoding="utf-8"))
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
    prompt = json.loads((CHECKOUT / "example_workflows" / "api" / "score_a_folder.json").read_text(encoding="utf-8"))
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
    path = CHECKOUT / "example_workflows" / "api" / "score_one_image.json"
    prompt = json.loads(path.read_text(encoding="utf-8"))
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
