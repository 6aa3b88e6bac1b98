"""The ComfyUI nodes, installed as ``qsit_plugin.nodes``: a node pack in ComfyUI's V3 style.

Importing it loads neither ComfyUI nor torch nor transformers. ComfyUI calls ``comfy_entrypoint``; there is on
purpose no ``NODE_CLASS_MAPPINGS``, because ComfyUI would take that table and never call the entry point.
"""

from __future__ import annotations

from typing import Any

__all__ = ["comfy_entrypoint"]


async def comfy_entrypoint() -> Any:
    """The extension that ComfyUI asks a pack for."""
    from qsit_plugin.nodes.extension import QSiTExtension

    return QSiTExtension()
