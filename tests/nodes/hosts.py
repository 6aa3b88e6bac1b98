"""What both hosts give: the server that nodes talk to, and the result of one run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parents[2]
FOLDERS = ("input", "output", "temp", "models/qsit", "models/LLM", "custom_nodes")


class Server:
    """Keeps what is sent to the browser; stands where ComfyUI's PromptServer does."""

    def __init__(self) -> None:
        self.client_id: str | None = "test"
        self.last_node_id = self.last_prompt_id = None
        self.events: list[tuple[Any, Any]] = []
        self.on_prompt_handlers: list[Any] = []

    def add_on_prompt_handler(self, handler: Any) -> None:
        self.on_prompt_handlers.append(handler)

    def queued(self, prompt: dict[str, Any]) -> None:
        """What ComfyUI's server does with a prompt that it gets, before it is checked."""
        for handler in self.on_prompt_handlers:
            handler({"prompt": prompt})

    def send_sync(self, event: Any, data: Any, sid: Any = None) -> None:
        self.events.append((event, data))

    def send_progress_text(self, text: str, node_id: str, sid: Any = None) -> None:
        self.events.append(("progress_text", {"node": node_id, "text": text}))


class Result:
    """One run. ``success``: nothing raised. ``invalid``: node id -> why it was refused before the run.

    ``errors``: the execution_error events that the client got. ``shown``: node id -> its ui, for nodes that have one.
    """

    def __init__(self, success: bool, events: list[tuple[Any, Any]], invalid: dict[str, Any]):
        self.success, self.invalid = success, invalid
        self.errors = [data for event, data in events if event == "execution_error"]
        self.shown = {data["node"]: data["output"] for event, data in events if event == "executed"}
