"""What all nodes share: their sockets' types, what they show, and how they refuse bad input.

A node that raised at once would end the whole run. Where a node refuses bad input, what depends on it is blocked, other
branches of the workflow still finish, and then the run ends as an error of that node (refusal.py).
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
from qsit_plugin.nodes import refusal
from qsit_plugin.nodes.errors import InputError
from qsit_plugin.nodes.pictures import displayable
from qsit_plugin.nodes.refusal import running_node as running_node  # for the other nodes
from qsit_plugin.nodes.refusal import shown_node

CATEGORY = "image/quality (Q-SiT)"
QSiTModel = io.Custom("QSIT_MODEL")
QSiTScores = io.Custom("QSIT_SCORES")
QSiTLoop = io.Custom("QSIT_LOOP")

BAD_INPUT = (InputError, ImageError, ContextError, WeightsError)
"""Raised by ``run`` and shown to the user. An overflow of float16 is a WeightsError that says what to choose."""
log = logging.getLogger("qsit_plugin")


def schema(*, search_aliases: list[str], **about: Any) -> io.Schema:
    """An io.Schema, with the words under which the node is found too where this version of ComfyUI has them."""
    if _knows("search_aliases"):
        about["search_aliases"] = search_aliases
    return io.Schema(**about, enable_expand=True)  # to a Refusal


def hidden_schema(**about: Any) -> io.Schema:
    """An io.Schema of a node that users do not place: in no menu where this version of ComfyUI can hide it so.

    Older pages hide what is deprecated.
    """
    return io.Schema(**about, **{"is_dev_only" if _knows("is_dev_only") else "is_deprecated": True})


def score_input(name: str, *, default: float, tooltip: str, optional: bool = False) -> io.Input:
    """A score, 0 to 1, in hundredths; ``records.fraction`` checks what comes in over a link."""
    return io.Float.Input(name, default=default, min=0.0, max=1.0, step=0.01, tooltip=tooltip, optional=optional)


def _knows(argument: str) -> bool:
    """Whether a schema takes the argument: 0.33 has these, and 0.3.64 would refuse the whole pack."""
    return argument in inspect.signature(io.Schema).parameters


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
        return refusal.count()

    @classmethod
    def show(
        cls, *outputs: Any, text: str, records: list[Any] | None = None, images: list[Any] | None = None
    ) -> io.NodeOutput:
        """Outputs, with a text on the node; text and records can be read by API clients in /history.

        ``images``: saved files, shown on the node.
        """
        server = _listening()
        if server is not None:
            server.send_progress_text(text, shown_node(), server.client_id)
        return io.NodeOutput(*outputs, ui=cls._ui(text, records or [], images or []))

    @classmethod
    def tell(cls, text: str, images: list[Any]) -> None:
        """Show text and images on the node while it still works. Nothing of it stays in /history or the cache."""
        server, context = _listening(), get_executing_context()
        if server is None:
            return
        server.send_progress_text(text, shown_node(), server.client_id)
        about = {"node": context.node_id, "display_node": shown_node(), "prompt_id": context.prompt_id}
        output = {"text": [text]} | ({"images": images} if images else {})
        server.send_sync("executed", about | {"output": output}, server.client_id)

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
        """Block every output, show the error on the node, and make it the run's. Without a server, raise it."""
        if _server() is None:
            raise error
        schema = cls.SCHEMA
        message = f"{error} ({schema.display_name}, node {shown_node()})"  # the cure first: the page shows little of it
        log.error("%s", message)
        record = {"error": {"type": type(error).__name__, "message": str(error)}}
        about = {"ui": cls._ui(message, [record], []), "expand": refusal.expansion(message)}
        if not schema.outputs:  # an expansion without outputs has no other way to say that there are none
            return io.NodeOutput(block_execution="", **about)
        return io.NodeOutput(*[ExecutionBlocker(None)] * len(schema.outputs), **about)


def _server() -> Any:
    from server import PromptServer

    return getattr(PromptServer, "instance", None)


def _listening() -> Any:
    """The server, where somebody looks at this run."""
    server = _server()
    return server if getattr(server, "client_id", None) is not None else None
