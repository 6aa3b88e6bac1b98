"""What the nodes cost a ComfyUI server, and what they leave behind in it.

    COMFYUI_PATH=/path/to/ComfyUI python -m benchmarks.comfyui_server

Starts ComfyUI on the CPU with its own base directory and the pack in it, and prints three things:

- seconds of a workflow with a slight blur, Score and Gate on 8 images of 512x512 with qsit-nano, the model and the
  images being loaded (ten runs; the blur changes from run to run, so that ComfyUI's cache cannot answer);
- resident memory of the server process after each of these runs;
- the files that are in ComfyUI's folder and in the base directory after the pack has been removed, and were not there
  before it came, apart from the images that a workflow saved on purpose.
"""

import json
import os
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from tests.nodes import live
from tests.nodes.hosts import CHECKOUT

RUNS = 10


def put_images(folder: Path) -> None:
    """Eight photos of 512x512: the package's photo, cut and mirrored, with a little noise so that no two are alike."""
    folder.mkdir(exist_ok=True)
    random = np.random.default_rng(0)
    with Image.open(CHECKOUT / "qsit_plugin" / "demo" / "astronaut.jpg") as photo:
        pixels = np.asarray(photo.convert("RGB").resize((512, 512)), dtype=float)
    for number in range(8):
        noisy = pixels + random.normal(0, 4 * number, pixels.shape)
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(folder / f"{number}.png")


def prompt(sigma: float) -> dict:
    """Eight images as one batch, a blur whose strength tells the runs apart, Score and Gate."""
    load = {"model_name": "qsit-nano", "dtype": "auto", "download": "never"}
    graph = {"1": {"class_type": "QSiT_LoadModel", "inputs": load}}
    for number in range(8):
        graph[f"2{number}"] = {"class_type": "LoadImage", "inputs": {"image": f"{number}.png"}}
    batch = "20"
    for number in range(1, 8):
        inputs = {"image1": [batch, 0], "image2": [f"2{number}", 0]}
        graph[f"3{number}"] = {"class_type": "ImageBatch", "inputs": inputs}
        batch = f"3{number}"
    blur = {"image": [batch, 0], "blur_radius": 1, "sigma": sigma}
    graph["40"] = {"class_type": "ImageBlur", "inputs": blur}
    score = {"model": ["1", 0], "images": ["40", 0], "aggregate": "mean"}
    graph["5"] = {"class_type": "QSiT_Score", "inputs": score}
    gate = {"images": ["40", 0], "scores": ["5", 5], "threshold": 0.5, "mode": "per image"}
    graph["6"] = {"class_type": "QSiT_Gate", "inputs": gate | {"empty_side": "stop silently"}}
    graph["7"] = {"class_type": "PreviewImage", "inputs": {"images": ["6", 0]}}
    return graph


def resident_mb(pid: int) -> float:
    import psutil

    return psutil.Process(pid).memory_info().rss / 1e6


def process_seconds(pid: int) -> float:
    """Time on processors, which other programs on the machine change less than the time on the clock."""
    import psutil

    times = psutil.Process(pid).cpu_times()
    return times.user + times.system


def seconds(history: dict) -> float:
    """From the start of the run to its end by ComfyUI's own clock."""
    at = {kind: about["timestamp"] for kind, about in history["status"]["messages"]}
    return (at["execution_success"] - at["execution_start"]) / 1000


def measure_runs(server: live.Running) -> None:
    print(f"first run, with loading: {seconds(server.run(prompt(0.1))):.2f} s")
    start = resident_mb(server.process.pid)
    print(f"memory after it: {start:.0f} MB")
    times, memory = [], []
    cpu = process_seconds(server.process.pid)
    for run in range(RUNS):
        history = server.run(prompt(0.2 + 0.1 * run))
        assert len(history["outputs"]["5"]["qsit"]) == 8, history
        times.append(seconds(history))
        memory.append(resident_mb(server.process.pid))
    print("seconds of the next runs:", " ".join(f"{value:.2f}" for value in times))
    cpu = (process_seconds(server.process.pid) - cpu) / RUNS
    print(f"processor seconds of a run, over both cores: {cpu:.1f}; load now {os.getloadavg()[0]:.1f}")
    print("memory after them, MB:", " ".join(f"{value:.0f}" for value in memory))
    print(f"growth over these {RUNS} runs: {memory[-1] - start:.0f} MB")


def files(*roots: Path) -> set[str]:
    """Every file and folder below the roots; ComfyUI's own bytecode and its log say nothing about a pack."""
    found = set()
    for root in roots:
        for folder, folders, names in os.walk(root):
            folders[:] = [name for name in folders if name not in ("__pycache__", ".git")]
            found |= {str(Path(folder, name)) for name in [*folders, *names]}
    return found


def measure_leftovers(base: Path, comfyui: Path) -> None:
    with live.started(base) as server:
        server.get("/object_info")  # what ComfyUI itself writes: its nodes make folders such as input/3d
    before = files(base, comfyui)
    pack = live.put_pack(base)
    with live.started(base) as server:
        measure_runs(server)
        for path in sorted((CHECKOUT / "example_workflows" / "api").glob("*.json")):
            if "CheckpointLoaderSimple" not in path.read_text(encoding="utf-8"):
                server.run(json.loads(path.read_text(encoding="utf-8")))
    with_pack = files(base, comfyui) - before
    shutil.rmtree(pack)
    with live.started(base) as server:  # ComfyUI empties its temp/ when it starts
        ours = [name for name in server.get("/object_info") if name.startswith("QSiT_")]
        mentions = [line for line in server.log().splitlines() if "qsit" in line.lower() or "q-sit" in line.lower()]
        print("nodes of ours after the next start:", ours, "lines about us in its log:", mentions)
    left = sorted(files(base, comfyui) - before)
    asked_for = [name for name in left if Path(name).is_relative_to(base / "output")]
    print(f"files and folders new with the pack: {len(with_pack)}; left after its folder is removed: {len(left)},")
    print(f"of them in output/, saved by the workflows on purpose: {len(asked_for)}; others:")
    print([os.path.relpath(name, base) for name in left if name not in asked_for])


def main() -> None:
    print(f"{time.strftime('%Y-%m-%d %H:%M')}, {os.cpu_count()} processors, load {os.getloadavg()[0]:.1f} at the start")
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        (base / "custom_nodes").mkdir()  # ComfyUI does not start without it
        put_images(base / "input")
        live.put_example(base)
        measure_leftovers(base, Path(live.COMFYUI))
    print(f"load {os.getloadavg()[0]:.1f} at the end")


if __name__ == "__main__":
    main()
