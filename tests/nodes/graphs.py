"""The graphs that tests start from, in ComfyUI's API form."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from tests.nodes.helpers import ARRIVED, give
from tests.nodes.hosts import CHECKOUT

MODEL = {"model_name": "qsit-nano", "dtype": "auto", "download": "never"}

GOOD, GREAT, OK = 0.5, 0.75, 0.3
"""What the example workflows call good, great and ok. The scores of the demo photo by qsit-nano must lie well to either
side: sharp is great, soft is ok and no more, blurred is bad."""
LOOP_GOOD = 0.6
"""What the loops and retries among the example workflows need."""


def api_form(browser_form: Path) -> Path:
    """The API form of an example workflow: the title of its browser form, in lower case and with underscores."""
    return browser_form.parent / "api" / (re.sub("[^a-z0-9]+", "_", browser_form.stem.lower()) + ".json")


def shipped(name: str, folder: Path = CHECKOUT / "example_workflows" / "api") -> dict[str, Any]:
    """An example workflow in API form, by the name of its file."""
    return json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))


def small(prompt: dict[str, Any], checkpoints: list[str]) -> dict[str, Any]:
    """A workflow that generates, with the checkpoints at hand, two steps and pictures of 64x64."""
    left, changes = iter(checkpoints), {"KSampler": {"steps": 2}, "EmptyLatentImage": {"width": 64, "height": 64}}
    for about in prompt.values():
        about["inputs"] |= changes.get(about["class_type"], {})
        if about["class_type"] == "CheckpointLoaderSimple":
            about["inputs"]["ckpt_name"] = next(left)
    return prompt


def shown_by(history: dict[str, Any]) -> dict[str, Any]:
    """Node id -> what it showed in a run that succeeded, a loop's under the id of its end node."""
    assert history["status"]["status_str"] == "success", history["status"]
    return {history["meta"][node]["display_node"]: shown for node, shown in history["outputs"].items()}


def score_of(images: str) -> dict[str, Any]:
    return {"model": ["model", 0], "images": [images, 0], "aggregate": "mean"}


def graph(images: Any) -> dict[str, Any]:
    """Load, a source of images, and Score."""
    return {
        "model": {"class_type": "QSiT_LoadModel", "inputs": dict(MODEL)},
        "images": give("images", images),
        "score": {"class_type": "QSiT_Score", "inputs": score_of("images")},
    }


def arrived(label: str) -> list[Any]:
    """Everything that the Keep node of this label got."""
    return ARRIVED.get(label, [])
