"""A small strict stand-in of ComfyUI's interface, written from its measured behaviour, for runs without a ComfyUI.

The same suite also runs on the real one (COMFYUI_PATH), which verifies the stand-in.
"""

from __future__ import annotations

import asyncio
import copy
import gc
import os
import sys
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

from tests.nodes.hosts import FOLDERS, Result, Server
from tests.nodes.stand_in import api, memory
from tests.nodes.stand_in.executor import CURRENT, Executor, NodeState


class Host:
    name = "stand-in"

    def __init__(self, base: Path):
        for folder in FOLDERS:
            (base / folder).mkdir(parents=True, exist_ok=True)
        self.base, self.server, self.count = base, Server(), 0
        self.mm = memory.model_management()
        _install("comfy_api.latest", io=api.io, ui=api.ui, ComfyExtension=api.ComfyExtension)
        _install("comfy_execution.graph_utils", ExecutionBlocker=api.ExecutionBlocker, is_link=api.is_link)
        _install("comfy_execution.utils", get_executing_context=lambda: CURRENT.get())
        self.progress = SimpleNamespace(nodes={}, dynprompt=None)
        _install("comfy_execution.progress", NodeState=NodeState, get_progress_state=lambda: self.progress)
        _install("comfy.model_patcher", ModelPatcher=memory.ModelPatcher)
        _install("comfy.utils", ProgressBar=memory.ProgressBar)
        _install("comfy.cli_args", args=SimpleNamespace(disable_metadata=False))
        _install("comfy.model_management", **vars(self.mm))
        sys.modules["comfy.model_management"] = sys.modules["comfy"].model_management = self.mm
        _install("server", PromptServer=SimpleNamespace(instance=self.server))
        _install("folder_paths", **_folder_paths(base))

        from qsit_plugin.nodes import comfy_entrypoint

        async def nodes() -> list[Any]:
            return await (await comfy_entrypoint()).get_node_list()

        self.classes: dict[str, Any] = {}
        for node in asyncio.run(nodes()):
            self.register(node)
        self.fresh()

    def register(self, node: Any) -> None:
        self.classes[node.GET_SCHEMA().node_id] = node

    def fresh(self) -> None:
        self.cache: dict[Any, Any] = {}
        self.mm.unload_all_models()
        gc.collect()

    def run(self, prompt: dict[str, Any], extra_pnginfo: dict[str, Any] | None = None) -> Result:
        self.count += 1
        self.server.events = []
        self.mm.interrupted = False
        number, prompt = f"prompt-{self.count}", copy.deepcopy(prompt)
        self.server.queued(prompt)
        executor = Executor(self.classes, self.server, prompt, number, self.cache, extra_pnginfo)
        self.progress.dynprompt = executor.graph
        success = executor.run()
        return Result(success, self.server.events, executor.invalid)


def _install(name: str, **content: Any) -> None:
    """Put a module, and the packages above it, into sys.modules."""
    parts = name.split(".")
    for depth in range(1, len(parts) + 1):
        full = ".".join(parts[:depth])
        if full not in sys.modules:
            sys.modules[full] = ModuleType(full)
            if depth > 1:
                setattr(sys.modules[".".join(parts[: depth - 1])], parts[depth - 1], sys.modules[full])
    vars(sys.modules[name]).update(content)


def _folder_paths(base: Path) -> dict[str, Any]:
    table: dict[str, tuple[list[str], set[str]]] = {}

    def add_model_folder_path(folder_name: str, full_folder_path: str, is_default: bool = False) -> None:
        paths = table.setdefault(folder_name, ([], set()))[0]
        if full_folder_path not in paths:
            paths.insert(0 if is_default else len(paths), full_folder_path)

    def get_save_image_path(filename_prefix, output_dir, image_width=0, image_height=0):
        now = time.localtime()
        values = {"width": image_width, "height": image_height, "year": now.tm_year, "month": f"{now.tm_mon:02}"}
        for name, value in values.items():
            filename_prefix = filename_prefix.replace(f"%{name}%", str(value))
        subfolder, name = os.path.split(os.path.normpath(filename_prefix))
        folder = Path(output_dir, subfolder)
        if not folder.resolve().is_relative_to(Path(output_dir).resolve()):
            raise Exception("Saving image outside the output folder is not allowed.")
        folder.mkdir(parents=True, exist_ok=True)
        rests = [path.name[len(name) + 1 :] for path in folder.iterdir() if path.name.startswith(f"{name}_")]
        numbers = [rest.split(".")[0].split("_")[0] for rest in rests]
        counter = max((int(n) for n in numbers if n.isdigit()), default=0) + 1
        return str(folder), name, counter, subfolder, filename_prefix

    return {
        "models_dir": str(base / "models"),
        "folder_names_and_paths": table,
        "add_model_folder_path": add_model_folder_path,
        "get_folder_paths": lambda name: list(table[name][0]),
        "get_input_directory": lambda: str(base / "input"),
        "get_temp_directory": lambda: str(base / "temp"),
        "get_output_directory": lambda: str(base / "output"),
        "get_save_image_path": get_save_image_path,
    }
