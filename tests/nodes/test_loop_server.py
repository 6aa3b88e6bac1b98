"""Q-SiT Until Good on a real server: around samplers, cancelled, and again and again."""

import copy
import json
import time

import pytest
from PIL import Image

from tests.nodes import live
from tests.nodes.graphs import shipped, shown_by, small

pytestmark = pytest.mark.skipif(not live.COMFYUI, reason="needs COMFYUI_PATH, the folder of a ComfyUI checkout")


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


def generating(checkpoints, seed=1, inside="KSampler"):
    """The loop of three tries around a sampler with random weights; and where its images come from."""
    prompt = small(shipped("generate_again_until_good"), checkpoints) | copy.deepcopy(LOOPS[inside])
    if "30" in prompt:
        prompt["21"]["inputs"] |= {"noise": ["30", 0], "guider": ["31", 0], "sampler": ["32", 0], "sigmas": ["33", 0]}
    image = ["40", 0] if "40" in prompt else ["22", 0]
    prompt["2"]["inputs"]["seed"] = seed
    prompt["5"]["inputs"] |= {"images": image, "threshold": 1.0, "max_tries": 3}
    return prompt, image


def alone(server, prompt, image, seed):
    """Score and pixels of what the nodes within the loop make of a seed without it."""
    single = json.loads(json.dumps(prompt).replace('["2", 1]', str(seed)))
    del single["2"], single["5"], single["7"]
    inputs = {"model": ["1", 0], "images": image, "aggregate": "mean"}
    single["9"] = {"class_type": "QSiT_Score", "inputs": inputs}
    single["6"]["inputs"] |= {"images": image, "scores": ["9", 5], "filename_prefix": "alone/x"}
    shown = shown_by(server.run(single))
    return shown["9"]["qsit"][0]["score"], saved(server, shown)


def saved(server, shown):
    (image,) = shown["6"]["images"]
    with Image.open(server.base / "output" / image["subfolder"] / image["filename"]) as file:
        return file.tobytes()


@pytest.mark.parametrize("inside", LOOPS)
def test_the_loop_gives_the_best_of_its_tries_as_the_score_node_rates_the_same_seeds_alone(server, checkpoints, inside):
    prompt, image = generating(checkpoints, inside=inside)
    shown = shown_by(server.run(prompt))
    (about,) = shown["5"]["qsit"]
    scores = [alone(server, prompt, image, seed)[0] for seed in (1, 2, 3)]
    assert about["scores"] == pytest.approx(scores, abs=1e-6)
    assert about["seed"] == 1 + scores.index(max(scores)) and not about["passed"]


def test_in_ten_runs_the_image_is_each_time_the_best_of_its_tries_and_the_counter_shows_each(server, checkpoints):
    places = []
    for run in range(10):
        first = 1000 * run
        prompt, image = generating(checkpoints, seed=first)
        events = server.watched(prompt)
        assert events[-1]["type"] == "execution_success", events[-1]
        told = [event["data"]["output"]["text"][0] for event in events if is_of(event, "5")]
        shown = {event["data"]["display_node"]: event["data"]["output"] for event in events if is_of(event, "6")}
        tries = [alone(server, prompt, image, first + number) for number in range(3)]
        best = max(range(3), key=lambda number: tries[number][0])
        places.append(best)
        assert saved(server, shown) == tries[best][1]
        counted = [line for line in told if "best so far" in line]
        assert [line.split(" (")[0] for line in counted] == [
            f"try {number + 1}, seed {first + number}: {tries[number][0]:.3f}" for number in range(2)
        ]
        assert f"try 3, seed {first + 2}: {tries[2][0]:.3f}" in told[-1]  # the last try comes with the result
        assert told[-1].endswith(f"the best: try {best + 1}, seed {first + best}")
    assert len(set(places)) > 1, "the best try was the same in all ten runs, so they could not show anything"


def is_of(event, node):
    """Whether an event carries what a node of the workflow, or a copy of it in the loop, shows."""
    return event["type"] == "executed" and event["data"]["display_node"] == node and event["data"]["output"]


def cancelled(server, after):
    """Run a loop that has no end, cancel it once ``after`` tries were shown; the events."""
    prompt, count = shipped("again_until_good"), 0
    prompt["5"]["inputs"] |= {"threshold": 1.0, "max_tries": 500}

    def when(event):
        nonlocal count
        count += bool(is_of(event, "5"))
        if count == after and is_of(event, "5"):
            assert server.post("/interrupt", {})[0] == 200

    return server.watched(prompt, when)


def test_a_cancelled_loop_stops_and_leaves_nothing_but_what_its_nodes_showed(server):
    before = {place: files(server, place) for place in ("output", "temp", "input")}
    events = cancelled(server, after=4)
    assert events[-1]["type"] == "execution_interrupted"
    tries = [event for event in events if is_of(event, "5")]
    assert 4 <= len(tries) < 20, "of 500"
    server.history(events[-1]["data"]["prompt_id"])  # which comes when the run is taken off the queue
    queue = server.get("/queue")
    assert queue["queue_running"] == [] and queue["queue_pending"] == []
    assert files(server, "output") == before["output"] and files(server, "input") == before["input"]
    shown = {
        image["filename"]
        for event in events
        if event["type"] == "executed" and event["data"]["output"]
        for image in event["data"]["output"].get("images", [])
    }
    assert files(server, "temp") - before["temp"] <= shown, "ComfyUI empties temp when it starts and when it ends"
    history = server.run(shipped("again_until_good"))
    assert shown_by(history)["5"]["qsit"][0]["tries"] == 3, "the next run does what it would have done without"


def files(server, place):
    return {path.name for path in (server.base / place).rglob("*") if path.is_file()}


def test_cancelled_loops_hold_no_memory_once_comfyui_lets_go(server):
    """A try holds at least an image of 3 MB, and its tensor at least twice: 15 tries of 8 runs would be 700 MB."""
    held = []
    for _ in range(10):
        assert cancelled(server, after=15)[-1]["type"] == "execution_interrupted"
        server.post("/free", {"unload_models": True, "free_memory": True})
        time.sleep(1.5)
        held.append(server.resident() / 2**20)
    assert max(held[2:]) - held[1] < 60, held


def test_a_loop_that_may_not_fail_makes_the_run_an_error_for_programs(server):
    prompt = shipped("again_until_good")
    prompt["5"]["inputs"] |= {"max_tries": 2, "if_none": "error"}
    prompt["20"] = {"class_type": "QSiT_DemoPhoto", "inputs": {"picture": "sharp", "seed": 0}}
    prompt["21"] = {"class_type": "PreviewImage", "inputs": {"images": ["20", 0]}}
    history = server.run(prompt)
    assert history["status"]["status_str"] == "error" and history["outputs"]["21"]["images"]
    (error,) = [about for kind, about in history["status"]["messages"] if kind == "execution_error"]
    assert error["node_id"] == "5" and error["exception_message"].startswith("none of 2 tries reaches 0.6 (2 tries)")
