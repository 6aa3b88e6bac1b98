"""The graphs that tests start from, in ComfyUI's API form."""

from __future__ import annotations

from typing import Any

from tests.nodes.helpers import ARRIVED, give

MODEL = {"model_name": "qsit-nano", "dtype": "auto", "download": "never"}


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
