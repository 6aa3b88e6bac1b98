"""How a node refuses bad input: what depends on it is blocked, other branches finish, and then the run is an error.

A node that raised would end the run at once, with other branches undone. A node that only blocked would leave the run
a success, for whoever asks /history. So it blocks, and expands to a hidden node that raises when nothing else is left.
"""

from __future__ import annotations

import asyncio
from typing import Any

import comfy.model_management as mm
from comfy_api.latest import io
from comfy_execution.progress import NodeState, get_progress_state
from comfy_execution.utils import get_executing_context

from qsit_plugin.nodes.errors import InputError

NODE_ID = "QSiT_Refusal"
POLL_SECONDS = 0.02

_counts: dict[str, int] = {}
"""Refusals by node. Part of the cache key, so that a refusal is never taken from the cache."""
_messages: dict[str, list[str]] = {}
"""The refusals of the prompt that runs, by its id, in order."""
_waiting = 0
"""Refusal nodes that wait for the rest of the run."""


def running_node() -> str:
    """The id of the node that runs, or is checked, now. Nodes that a loop made have ids of their own."""
    context = get_executing_context()
    return "" if context is None else str(context.node_id)


def shown_node() -> str:
    """The id of the node of the workflow that the running one belongs to: the one that the user sees."""
    return str(get_progress_state().dynprompt.get_display_node_id(running_node()))


def count() -> int:
    """How often the running node has refused so far."""
    return _counts.get(running_node(), 0)


def expansion(message: str) -> dict[str, Any]:
    """The graph to which a node that refuses expands. Counts the refusal."""
    context, graph = get_executing_context(), get_progress_state().dynprompt
    node: str | None = str(context.node_id)
    while node is not None:  # what a loop made is cached with the loop's own node
        _counts[node] = _counts.get(node, 0) + 1
        node = graph.get_parent_node_id(node)
    if context.prompt_id not in _messages:
        _messages.clear()  # one prompt runs at a time; what an interrupted one left goes
    _messages.setdefault(context.prompt_id, []).append(message)
    name = f"{context.node_id}.{context.list_index or 0}.refusal"
    return {name: {"class_type": NODE_ID, "inputs": {"message": message}}}


class Refusal(io.ComfyNode):
    """Raises once everything else in the run has finished. Made by nodes that refuse, never placed by a user."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        from qsit_plugin.nodes.base import CATEGORY, hidden_schema

        return hidden_schema(
            node_id=NODE_ID,
            display_name="Q-SiT Refusal",
            category=CATEGORY,
            description="Ends a run in which a Q-SiT node got bad input, after everything else has finished. Made by "
            "those nodes, not to be placed.",
            is_output_node=True,
            inputs=[io.String.Input("message", tooltip="What was wrong.")],
            outputs=[],
        )

    @classmethod
    async def execute(cls, message: str) -> io.NodeOutput:
        global _waiting
        prompt = get_executing_context().prompt_id
        _waiting += 1
        try:
            while True:  # ComfyUI goes on with other nodes; it comes back here only when none of them is ready
                await asyncio.sleep(POLL_SECONDS)
                mm.throw_exception_if_processing_interrupted()
                said = _messages.get(prompt, [message])
                if not _others_work() and said[0] == message:
                    _messages.pop(prompt, None)
                    raise InputError("\n".join(dict.fromkeys(said)))
        finally:
            _waiting -= 1


def _others_work() -> bool:
    """Whether another node that waits for something outside (as ComfyUI's API nodes do) is still at work.

    Two signs must agree, for either alone can stay for ever: a task of the executor's loop beside its own and the two
    of each Refusal, and a node that began and has not ended.
    """
    state = get_progress_state()
    running = (node for node, about in state.nodes.items() if about["state"] is NodeState.Running)
    others = any(state.dynprompt.get_node(node)["class_type"] != NODE_ID for node in running)
    return others and len(asyncio.all_tasks()) > 1 + 2 * _waiting
