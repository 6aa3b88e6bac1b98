"""Which nodes lie between a loop's two ends, and a copy of them for one more try. Knows graphs in API form only.

ComfyUI's graphs have no cycles. A loop is made as its own test nodes make one: when another try is needed, the end node
expands to a copy of what lies between, with a copy of itself at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from comfy_execution.graph_utils import is_link

Node = Mapping[str, Any]
"""``class_type`` and ``inputs``; an input that is a link is ``[node id, output number]``."""


def between(start: str, end: str, node_of: Callable[[str], Node]) -> list[str]:
    """Ids of the nodes that depend on ``start`` and that ``end`` depends on, without the two, sorted."""
    sources: dict[str, set[str]] = {}
    waiting = [end]
    while waiting:
        node = waiting.pop()
        if node not in sources:
            sources[node] = {value[0] for value in node_of(node)["inputs"].values() if is_link(value)}
            waiting += sources[node]
    users: dict[str, list[str]] = {}
    for node, needed in sources.items():
        for source in needed:
            users.setdefault(source, []).append(node)
    found: set[str] = set()
    waiting = [start]
    while waiting:
        for user in users.get(waiting.pop(), []):
            if user not in found:
                found.add(user)
                waiting.append(user)
    return sorted(found - {start, end})


def copy_of(nodes: list[str], node_of: Callable[[str], Node], before: str, after: str) -> dict[str, dict[str, Any]]:
    """The nodes under ids that begin with ``after`` in place of ``before``, linked among themselves as they were.

    A link that leads out of them stays: what lies before the loop is computed once. Texts and progress of a copy are
    shown on the node that it is a copy of.
    """

    def renamed(node: str) -> str:
        return after + node.removeprefix(before)

    inside = set(nodes)
    return {
        renamed(node): {
            "class_type": node_of(node)["class_type"],
            "inputs": {
                name: [renamed(value[0]), value[1]] if is_link(value) and value[0] in inside else value
                for name, value in node_of(node)["inputs"].items()
            },
            "override_display_id": node,
        }
        for node in nodes
    }
