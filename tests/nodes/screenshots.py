"""A picture of each example workflow, run in ComfyUI's page on scikit-image's photos, for its list of templates.

    COMFYUI_PATH=/path/to/ComfyUI python -m tests.nodes.screenshots example_workflows [NAME ...]

Needs ComfyUI's Python with playwright and scikit-image, and chromium.
"""

import io
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from tests.nodes import live, page
from tests.nodes.hosts import CHECKOUT

PHOTO = {"explain_one_image": "cat-with-noise.png", "gate_good_and_bad": "coffee.png", "explain_failures": "coffee.png"}
PHOTO |= {"gate_then_upscale": "coffee.png", "first_good_enough_of_two": "coffee.png", "score_one_image": "cat.png"}
LEFT, TOP = 60, 95  # the page's bars
# Zoom so that all nodes are seen between the page's bars.
FIT = """() => { const canvas = window.app.canvas, nodes = window.app.graph._nodes;
    const left = Math.min(...nodes.map(n => n.pos[0])), right = Math.max(...nodes.map(n => n.pos[0] + n.size[0]));
    const top = Math.min(...nodes.map(n => n.pos[1] - 30)), bottom = Math.max(...nodes.map(n => n.pos[1] + n.size[1]));
    const at = canvas.canvas.getBoundingClientRect(), width = innerWidth - LEFT - 20, height = innerHeight - TOP - 20;
    const scale = Math.min(width / (right - left + 40), height / (bottom - top + 40), 1);
    canvas.ds.scale = scale;
    canvas.ds.offset = [(LEFT - at.left) / scale - left + 20, (TOP - at.top) / scale - top + 20];
    canvas.setDirty(true, true);
    return [(right - left + 40) * scale, (bottom - top + 40) * scale]; }"""
FIT = FIT.replace("LEFT", str(LEFT)).replace("TOP", str(TOP))


def put_photos(folder: Path) -> None:
    from skimage import data

    folder.mkdir()
    for name in ("astronaut", "coffee", "cat"):
        photo = Image.fromarray(getattr(data, name)()).convert("RGB")
        side = min(photo.size)
        left, top = (photo.width - side) // 2, (photo.height - side) // 2
        photo = photo.crop((left, top, left + side, top + side)).resize((512, 512), Image.Resampling.LANCZOS)
        photo.save(folder / f"{name}.png")
        noisy = np.asarray(photo) + np.random.default_rng(0).normal(0, 35, (512, 512, 3))
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(folder / f"{name}-with-noise.png")


def shoot(browser: page.Page, path: Path, folder: Path) -> None:
    workflow = json.loads(path.read_text(encoding="utf-8"))
    kinds = {node["type"] for node in workflow["nodes"]}
    for node in workflow["nodes"]:
        if node["type"] == "LoadImage":
            node["widgets_values"][0] = PHOTO.get(path.stem, "astronaut.png")
    browser.load(workflow, path.stem)
    outputs = {}
    if "CheckpointLoaderSimple" not in kinds:  # what generates is shown before it runs
        outputs = browser.queue()["outputs"]
    width, height = browser.tab.evaluate(FIT)
    for node, output in outputs.items():
        if output.get("images"):
            shown = f"window.app.graph.getNodeById({node}).imgs?.[0]?.naturalWidth"
            browser.tab.wait_for_function(shown, timeout=60_000)
    for node in workflow["nodes"]:
        if node["type"] == "PreviewAny" and outputs:
            print(path.stem, node["title"], outputs[str(node["id"])]["text"][0].replace("\n", " | "), flush=True)
    time.sleep(1)
    clip = {"x": LEFT, "y": TOP, "width": width, "height": height}
    picture = Image.open(io.BytesIO(browser.tab.screenshot(clip=clip))).convert("RGB")
    picture.save(folder / f"{path.stem}.jpg", quality=82, optimize=True)


def main(folder: Path, names: list[str]) -> None:
    paths = sorted((CHECKOUT / "example_workflows").glob("*.json"))
    paths = [path for path in paths if path.stem in names or not names]
    with tempfile.TemporaryDirectory() as base:
        live.put_pack(Path(base))
        put_photos(Path(base, "input"))
        with live.started(Path(base)) as server, page.opened(server, 1600, 1000) as browser:
            for path in paths:
                shoot(browser, path, folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
