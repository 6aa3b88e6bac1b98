"""ComfyUI loads this file when the repository is cloned into custom_nodes/. No sys.path is changed."""

import importlib.util
import sys
from pathlib import Path

if importlib.util.find_spec("qsit_plugin") is None:  # not installed: take the folder beside this file
    _home = Path(__file__).resolve().parent / "qsit_plugin"
    _spec = importlib.util.spec_from_file_location(
        "qsit_plugin", _home / "__init__.py", submodule_search_locations=[str(_home)]
    )
    sys.modules["qsit_plugin"] = importlib.util.module_from_spec(_spec)
    _spec.loader.exec_module(sys.modules["qsit_plugin"])

from qsit_plugin.nodes import comfy_entrypoint  # noqa: E402

WEB_DIRECTORY = "./web"  # help pages: web/docs/<node id>.md

__all__ = ["WEB_DIRECTORY", "comfy_entrypoint"]
