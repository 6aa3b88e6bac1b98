"""A picture of each example workflow, run in ComfyUI's page, for documents. thumbnails.py draws those of the templates.

    COMFYUI_PATH=/path/to/ComfyUI python -m tests.nodes.screenshots [--vue] [--frontend STATIC] FOLDER [TITLE ...]

--frontend: the folder `static` of an unpacked comfyui-frontend-package, in place of the page that ComfyUI pins. --vue:
in the newer rendering of nodes. Needs ComfyUI's Python with playwright, and chromium. The pictures are WebP.
"""

import argparse
import io
import json
import tempfile
import time
from pathlib import Path

from PIL import Image

from tests.nodes import live, page
from tests.nodes.hosts import CHECKOUT

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


ALL_LOADED = "() => [...document.images].every(image => image.complete)"


def shoot(browser: page.Page, path: Path, folder: Path, vue: bool) -> None:
    workflow = json.loads(path.read_text(encoding="utf-8"))
    kinds = {node["type"] for node in workflow["nodes"]}
    browser.load(workflow, path.stem)
    outputs = {}
    if "CheckpointLoaderSimple" not in kinds:  # what generates is shown before it runs
        entry = browser.queue()
        outputs = {entry["meta"][node]["display_node"]: shown for node, shown in entry["outputs"].items()}
    width, height = browser.tab.evaluate(FIT)
    for node, output in outputs.items():
        if output.get("images") and not vue:
            shown = f"window.app.graph.getNodeById({node}).imgs?.[0]?.naturalWidth"
            browser.tab.wait_for_function(shown)
    for node in workflow["nodes"]:
        if node["type"] == "PreviewAny" and outputs:
            print(path.stem, node["title"], outputs[str(node["id"])]["text"][0].replace("\n", " | "), flush=True)
    time.sleep(1)
    browser.tab.wait_for_function(ALL_LOADED)  # in the newer rendering pictures are part of the page
    clip = {"x": LEFT, "y": TOP, "width": width, "height": height}
    picture = Image.open(io.BytesIO(browser.tab.screenshot(clip=clip))).convert("RGB")
    picture.save(folder / f"{path.stem}.webp", quality=80, method=6)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("titles", nargs="*")
    parser.add_argument("--vue", action="store_true")
    parser.add_argument("--frontend")
    asked = parser.parse_args()
    paths = sorted((CHECKOUT / "example_workflows").glob("*.json"))
    paths = [path for path in paths if path.stem in asked.titles or not asked.titles]
    options = ["--front-end-root", asked.frontend] if asked.frontend else []
    with tempfile.TemporaryDirectory() as base:
        live.put_pack(Path(base))
        live.put_example(Path(base))
        with live.started(Path(base), *options) as server, page.opened(server, 1600, 1000) as browser:
            browser.render("Vue" if asked.vue else "old")
            for path in paths:
                shoot(browser, path, asked.folder, asked.vue)


if __name__ == "__main__":
    main()
