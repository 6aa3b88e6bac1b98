"""A ComfyUI at COMFYUI_PATH, run inside this process: its own node loader, validation, cache and executor."""

from __future__ import annotations

import asyncio
import copy
import gc
import importlib
import inspect
import logging
import sys
from pathlib import Path
from typing import Any

from tests.nodes.hosts import CHECKOUT, FOLDERS, Result, Server


class Host:
    name = "ComfyUI"

    def __init__(self, comfyui: str, base: Path):
        self.base = base
        for folder in FOLDERS:
            (base / folder).mkdir(parents=True, exist_ok=True)
        argv, sys.argv = sys.argv, ["main.py", "--cpu", "--base-directory", str(base)]
        sys.path.insert(0, comfyui)
        try:
            importlib.import_module("comfy.options").enable_args_parsing()
            importlib.import_module("utils.extra_config")  # as main.py does: "nodes" then puts another utils first
            self.nodes = importlib.import_module("nodes")
            self.execution = importlib.import_module("execution")
        finally:
            sys.argv = argv
        logging.getLogger().setLevel(logging.WARNING)
        self.server = Server()
        importlib.import_module("server").PromptServer.instance = self.server
        loaded = asyncio.run(self.nodes.load_custom_node(str(CHECKOUT), set(), module_parent="custom_nodes"))
        assert loaded, "ComfyUI did not load the pack; its log says why"
        self.count = 0
        self.fresh()

    def fresh(self) -> None:
        """Forget every cached output and unload models, as ComfyUI does on POST /free with free_memory."""
        options: dict[str, Any] = {}
        if "cache_args" in inspect.signature(self.execution.PromptExecutor).parameters:  # newer than 0.3.64
            options["cache_args"] = {"lru": 0, "ram": 0.0, "ram_inactive": 0.0}
        self.executor = self.execution.PromptExecutor(self.server, **options)
        importlib.import_module("comfy.model_management").unload_all_models()
        gc.collect()

    def register(self, node: Any) -> None:
        self.nodes.NODE_CLASS_MAPPINGS[node.GET_SCHEMA().node_id] = node

    def run(self, prompt: dict[str, Any], extra_pnginfo: dict[str, Any] | None = None) -> Result:
        self.count += 1
        self.server.events = []
        number = f"prompt-{self.count}"
        prompt = copy.deepcopy(prompt)  # ComfyUI writes into it; a client sends a new one each time
        self.server.queued(prompt)
        valid = asyncio.run(self.execution.validate_prompt(number, prompt, None))
        invalid = {node: [error["details"] for error in about["errors"]] for node, about in valid[3].items()}
        if not valid[0]:
            return Result(False, [], invalid)
        self.executor.execute(prompt, number, {"client_id": "test", "extra_pnginfo": extra_pnginfo}, valid[2])
        return Result(self.executor.success, self.server.events, invalid)
