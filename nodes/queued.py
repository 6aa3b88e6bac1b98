"""What a queued workflow says in inputs that a check of another input may not name.

ComfyUI repeats the answer of ``validate_inputs`` for every input that the method names: two names, two errors for one
fault. So the check of a model's name names nothing else, and whether that model may be downloaded is taken from the
workflow as the server receives it, right before it is checked.
"""

from __future__ import annotations

from typing import Any

_downloads: dict[str, Any] = {}
"""Node id -> value of ``download``, of the Load nodes of the workflow that was queued last."""


def remember_downloads(queued: dict[str, Any]) -> dict[str, Any]:
    """A handler for ``PromptServer.add_on_prompt_handler``: ``queued`` is the body of POST /prompt, returned as is."""
    _downloads.clear()
    nodes = queued.get("prompt")
    for number, node in nodes.items() if isinstance(nodes, dict) else ():
        if isinstance(node, dict) and node.get("class_type") == "QSiT_LoadModel":
            _downloads[str(number)] = (node.get("inputs") or {}).get("download")
    return queued


def download_of(node: str) -> Any:
    """The ``download`` of a Load node; None where it is not known yet (a link, or a graph that was not queued)."""
    return _downloads.get(node)
