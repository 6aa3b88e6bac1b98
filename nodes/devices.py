"""On which device a model runs: ComfyUI's choice, the CPU, or one of several GPUs where this version offers them."""

from __future__ import annotations

from typing import Any

import comfy.model_management as mm

from qsit_plugin.nodes.errors import InputError

DEFAULT = "default"


def device_options() -> list[str]:
    """As ComfyUI's own loaders offer them: "default", "cpu", and "gpu:0", "gpu:1" ... where there are several."""
    offered = getattr(mm, "get_gpu_device_options", None)  # 0.3.64 has none
    return list(offered()) if offered is not None else [DEFAULT, "cpu"]


def chosen_device(option: str) -> Any:
    """The torch device of an option. Raises InputError for one that is not here."""
    if mm.vram_state == mm.VRAMState.NO_VRAM or option == "cpu":
        # --novram leaves layers behind even when a full load is asked for
        import torch

        return torch.device("cpu")
    if option == DEFAULT:
        return mm.get_torch_device()
    device = mm.resolve_gpu_device_option(option) if option in device_options() else None
    if device is None:
        raise InputError(f"device must be one of {', '.join(device_options())}; got {option!r}")
    return device
