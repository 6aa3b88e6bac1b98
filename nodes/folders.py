"""Which checkpoints a ComfyUI installation offers: the embedded one, folders in models/, and the official names."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from qsit_plugin.weights.catalogue import ENTRIES

EMBEDDED = "qsit-nano"
DEPTH = 2
"""A model folder may lie one folder deeper, as in models/LLM/owner/name."""


def found_models(roots: Mapping[str, Iterable[str]]) -> dict[str, Path]:
    """Label -> folder of every LLaVA-OneVision checkpoint below the roots, sorted.

    Args:
        roots: kind of model folder ("qsit", "LLM") -> its folders. The label is ``kind/relative/path`` with forward
            slashes on every system, so that a workflow can move; of two folders with one label the first counts.
    """
    found: dict[str, Path] = {}
    for kind, folders in roots.items():
        for root in map(Path, folders):
            for folder in _checkpoints(root, DEPTH):
                found.setdefault(f"{kind}/{folder.relative_to(root).as_posix()}", folder)
    return dict(sorted(found.items()))


def choices(found: Iterable[str]) -> list[str]:
    """What the model list shows: the embedded model first, then folders, then official names to be downloaded."""
    return [EMBEDDED, *found, *(name for name in ENTRIES if name != EMBEDDED)]


def _checkpoints(folder: Path, depth: int) -> Iterable[Path]:
    try:
        children = sorted(path for path in folder.iterdir() if path.is_dir())
    except OSError:  # a root that is not there, or may not be read, offers nothing
        return
    for child in children:
        if (child / "config.json").is_file():
            if _is_llava_onevision(child / "config.json"):
                yield child
        elif depth > 1:
            yield from _checkpoints(child, depth - 1)


def _is_llava_onevision(path: Path) -> bool:
    """models/LLM holds other packs' models too: what is not ours, or not readable, is not offered."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and content.get("model_type") == "llava_onevision"
