"""What all nodes share: their sockets' types, what they show, and how they refuse bad input.

A node that raised would end the whole run. Bad input is instead reported once, as an error of that node, and what
depends on it is blocked: other branches of the workflow still finish.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from typing import Any

from comfy_api.latest import io, ui
from comfy_execution.graph_utils import ExecutionBlocker
from comfy_execution.utils import get_executing_context

from qsit_plugin.errors import ContextError, WeightsError
from qsit_plugin.images.reading import ImageError
from qsit_plugin.nodes.errors import InputError
from qsit_plugin.nodes.pictures import displayable

CATEGORY = "image/quality (Q-SiT)"
QSiTModel = io.Custom("QSIT_MODEL")
QSiTScores = io.Custom("QSIT_SCORES")

BAD_INPUT = (InputError, ImageError, ContextError, WeightsError)
"""Raised by ``run`` and shown to the user. An overflow of float16 is a WeightsError that says what to choose."""
log = logging.getLogger("qsit_plugin")


def schema(*, search_aliases: list[str], **about: Any) -> io.Schema:
    """An io.Schema, with the words under which the node is found too where this version of ComfyUI has them."""
    if "search_aliases" in inspect.signature(io.Schema).parameters:  # 0.33 has them, 0.3.64 would refuse the pack
        about["search_aliases"] = search_aliases
    return io.Schema(**about)


_refusals: dict[str, int] = {}
"""Refusals by node of the workflow. Part of the cache key, so that a refusal is never taken from the cache."""


class QSiTNode(io.ComfyNode):
    """A node whose ``run`` may raise one of BAD_INPUT. ``run`` takes the inputs and returns what ``show`` gives."""

    UI: tuple[str, ...] = ("text", "qsit")
    """What every call shows: ComfyUI joins these keys over a list's items and needs the same ones each time."""
    HAS_INTERMEDIATE_OUTPUT = True
    """Newer versions (0.33, not 0.3.64) leave nodes that their cache answers for out of /history otherwise."""

    run: Callable[..., io.NodeOutput]
    """The node's work: a class method that takes its inputs by name."""

    @classmethod
    def execute(cls, **inputs: Any) -> io.NodeOutput:
        try:
            return cls.run(**inputs)
        except BAD_INPUT as error:
            return cls.refuse(error)

    @classmethod
    def fingerprint_inputs(cls, *_: Any, **inputs: Any) -> Any:
        return _refusals.get(running_node(), 0)

    @classmethod
    def show(
        cls, *outputs: Any, text: str, records: list[Any] | None = None, images: list[Any] | None = None
    ) -> io.NodeOutput:
        """Outputs, with a text on the node; text and records can be read by API clients in /history.

        ``images``: saved files, shown on the node.
        """
        server = _server()
        if server is not None and getattr(server, "client_id", None) is not None:
            server.send_progress_text(text, running_node(), server.client_id)
        return io.NodeOutput(*outputs, ui=cls._ui(text, records or [], images or []))

    @classmethod
    def previews(cls, *batches: Any) -> list[Any]:
        """The images as files in ComfyUI's temp folder, for ``show``, as its own Preview Image writes them."""
        images = [image for batch in batches for image in displayable(batch)]
        return list(ui.PreviewImage(images, cls=cls).as_dict()["images"]) if images else []

    @classmethod
    def _ui(cls, text: str, records: list[Any], images: list[Any]) -> dict[str, list[Any]]:
        content = {"text": [text], "qsit": records, "images": images}
        return {key: content[key] for key in cls.UI}

    @classmethod
    def refuse(cls, error: Exception) -> io.NodeOutput:
        """Report the error once and block every output. Without a server to report to, raise it."""
        server, node, schema = _server(), running_node(), cls.SCHEMA
        if server is None:
            raise error
        message = f"{error} ({schema.display_name}, node {node})"  # the cure first: the page shows little of it
        _refusals[node] = _refusals.get(node, 0) + 1
        log.error("%s", message)
        about = {
            "prompt_id": get_executing_context().prompt_id,
            "node_id": node,
            "node_type": schema.node_id,
            "executed": [],
            "exception_message": message,
            "exception_type": type(error).__name__,
            "traceback": [],
            "current_inputs": [],
            "current_outputs": [],
        }
        server.send_sync("execution_error", about, getattr(server, "client_id", None))
        blocked = [ExecutionBlocker(None)] * len(schema.outputs or [])
        record = {"error": {"type": type(error).__name__, "message": str(error)}}
        return io.NodeOutput(*blocked, ui=cls._ui(message, [record], []))


def _server() -> Any:
    from server import PromptServer

    return getattr(PromptServer, "instance", None)


def running_node() -> str:
    """The id of the node in its workflow that runs, or is checked, now."""
    context = get_executing_context()
    return "" if context is None else str(context.node_id)
