"""What a queued workflow says in inputs that a check of another input may not name.

ComfyUI repeats the answer of ``validate_inputs`` for every input that the method names: two names, two errors for one
fault. So the check of a model's name names nothing else, and whether that model may be downloaded, or a folder takes
its place, is taken from the workflow as the server receives it, right before it is checked.
"""

from __future__ import annotations

from typing import Any

_loads: dict[str, dict[str, Any]] = {}
"""Node id -> inputs, of the Load nodes of the workflow that was queued last."""


def remember_loads(queued: dict[str, Any]) -> dict[str, Any]:
    """A handler for ``PromptServer.add_on_prompt_handler``: ``queued`` is the body of POST /prompt, returned as is."""
    _loads.clear()
    nodes = queued.get("prompt")
    for number, node in nodes.items() if isinstance(nodes, dict) else ():
        if isinstance(node, dict) and node.get("class_type") == "QSiT_LoadModel":
            inputs = node.get("inputs")
            _loads[str(number)] = dict(inputs) if isinstance(inputs, dict) else {}
    return queued


def queued_input(node: str, name: str) -> Any:
    """An input of a Load node: a value, or a link as a list; None where it is not known (a graph not queued)."""
    return _loads.get(node, {}).get(name)
