"""The pictures of docs/comfyui.md: four example workflows, run in ComfyUI's page on scikit-image's photos.

    COMFYUI_PATH=/path/to/ComfyUI python -m tests.nodes.screenshots docs/images

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

SHOTS = {
    "comfyui-gate": ("gate_good_and_bad", "coffee.png"),
    "comfyui-rank": ("keep_the_best", "astronaut.png"),
    "comfyui-explain": ("explain_one_image", "cat-with-noise.png"),
    "comfyui-first-good-enough": ("first_good_enough_of_two", "coffee.png"),
}
# Zoom so that all nodes are seen between the page's bars.
FIT = """() => { const canvas = window.app.canvas, nodes = window.app.graph._nodes;
    const left = Math.min(...nodes.map(n => n.pos[0])), right = Math.max(...nodes.map(n => n.pos[0] + n.size[0]));
    const top = Math.min(...nodes.map(n => n.pos[1] - 30)), bottom = Math.max(...nodes.map(n => n.pos[1] + n.size[1]));
    const at = canvas.canvas.getBoundingClientRect(), width = innerWidth - 70, height = innerHeight - 125;
    const scale = Math.min(width / (right - left), height / (bottom - top), 0.95);
    canvas.ds.scale = scale;
    canvas.ds.offset = [(55 - at.left + width / 2) / scale - (left + right) / 2,
                        (105 - at.top + height / 2) / scale - (top + bottom) / 2];
    canvas.setDirty(true, true); }"""


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


def shoot(browser: page.Page, name: str, workflow_name: str, photo: str, folder: Path) -> None:
    path = CHECKOUT / "example_workflows" / f"{workflow_name}.json"
    workflow = json.loads(path.read_text(encoding="utf-8"))
    for node in workflow["nodes"]:
        if node["type"] == "LoadImage":
            node["widgets_values"][0] = photo
    browser.load(workflow, workflow_name)
    browser.queue()
    time.sleep(2)  # pictures are fetched and drawn
    browser.tab.evaluate(FIT)
    time.sleep(1)
    picture = io.BytesIO(browser.tab.screenshot())
    Image.open(picture).convert("RGB").save(folder / f"{name}.png", optimize=True)
    for node in workflow["nodes"]:
        if node["type"].startswith("QSiT_"):
            print(name, node["type"], browser.text_on(node["id"]).replace("\n", " | "))


def main(folder: Path) -> None:
    with tempfile.TemporaryDirectory() as base:
        live.put_pack(Path(base))
        put_photos(Path(base, "input"))
        with live.started(Path(base)) as server, page.opened(server) as browser:
            for name, (workflow, photo) in SHOTS.items():
                shoot(browser, name, workflow, photo, folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
