"""Which checkpoints a ComfyUI installation offers: the embedded one, folders in models/, and the official names."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
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
    for label, folder in _labelled(roots):
        if why_no_checkpoint(folder) is None:
            found.setdefault(label, folder)
    return dict(sorted(found.items()))


def why_not_offered(roots: Mapping[str, Iterable[str]], label: str) -> str | None:
    """What is wrong with the config.json of the folder of this label; None where there is no such folder."""
    for found, folder in _labelled(roots):
        if found == label and (reason := why_no_checkpoint(folder)) is not None:
            return f"{folder / 'config.json'} {reason}"
    return None


def choices(found: Iterable[str]) -> list[str]:
    """What the model list shows: the embedded model first, then folders, then official names to be downloaded."""
    return [EMBEDDED, *found, *(name for name in ENTRIES if name != EMBEDDED)]


def _labelled(roots: Mapping[str, Iterable[str]]) -> Iterator[tuple[str, Path]]:
    for kind, folders in roots.items():
        for root in map(Path, folders):
            for folder in _with_config(root, DEPTH):
                yield f"{kind}/{folder.relative_to(root).as_posix()}", folder


def _with_config(folder: Path, depth: int) -> Iterator[Path]:
    try:
        children = sorted(path for path in folder.iterdir() if path.is_dir())
    except OSError:  # a root that is not there, or may not be read, offers nothing
        return
    for child in children:
        if (child / "config.json").is_file():
            yield child
        elif depth > 1:
            yield from _with_config(child, depth - 1)


def why_no_checkpoint(folder: Path) -> str | None:
    """Why a folder with its config.json is not offered: models/LLM holds other packs' models, and broken files, too.

    Nothing is raised: ComfyUI reads the list of models at its start, and an error there would take the whole pack away.
    """
    try:
        content = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except OSError as error:
        return f"cannot be read ({error.strerror or error})"
    except (ValueError, RecursionError) as error:  # RecursionError: nested thousands of levels deep
        return f"is not JSON ({error})"
    if not isinstance(content, dict):
        return f"holds {type(content).__name__} in place of an object"
    kind = content.get("model_type")
    return None if kind == "llava_onevision" else f"says model_type {kind!r}; needed is 'llava_onevision'"
