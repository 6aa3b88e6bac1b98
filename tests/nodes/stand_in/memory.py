"""comfy.model_management and ModelPatcher as far as the pack uses them, on a CPU."""

from __future__ import annotations

import weakref
from enum import Enum
from types import ModuleType
from typing import Any

import torch


class VRAMState(Enum):
    NORMAL_VRAM = 3
    NO_VRAM = 1


class InterruptProcessingException(Exception):
    pass


class ModelPatcher:
    def __init__(self, model, load_device, offload_device, size=0, weight_inplace_update=False):
        model.device = offload_device  # transformers' models refuse this, as they do in ComfyUI
        self.model, self.load_device, self.offload_device = model, load_device, offload_device

    def loaded_size(self) -> int:
        return sum(p.numel() * p.element_size() for p in self.model.parameters())


class LoadedModel:
    """Holds its patcher weakly: what the node cache lets go is gone."""

    def __init__(self, patcher: ModelPatcher):
        self._patcher = weakref.ref(patcher)

    @property
    def model(self) -> Any:
        return self._patcher()


class ProgressBar:
    def __init__(self, total, node_id=None):
        self.total, self.current = total, 0

    def update(self, value):
        self.current += value
        if self.current > self.total:
            raise ValueError(f"progress {self.current} of {self.total}")


def model_management() -> ModuleType:
    """A fresh module, so that no state is shared between sessions."""
    mm: Any = ModuleType("comfy.model_management")
    mm.current_loaded_models = []
    mm.vram_state, mm.VRAMState = VRAMState.NORMAL_VRAM, VRAMState
    mm.InterruptProcessingException = InterruptProcessingException
    mm.interrupted = False
    cpu = torch.device("cpu")
    mm.get_torch_device = mm.text_encoder_offload_device = mm.intermediate_device = lambda: cpu

    def load_models_gpu(
        models, memory_required=0, force_patch_weights=False, minimum_memory_required=None, force_full_load=False
    ):
        if not force_full_load:
            raise ValueError("layers of transformers cannot be loaded in part: force_full_load")
        for patcher in models:
            patcher.model.to(patcher.load_device)
            mm.current_loaded_models[:] = [m for m in mm.current_loaded_models if m.model not in (None, patcher)]
            mm.current_loaded_models.insert(0, LoadedModel(patcher))

    def interrupt_current_processing(value=True):
        mm.interrupted = value

    def throw_exception_if_processing_interrupted():
        if mm.interrupted:
            mm.interrupted = False
            raise InterruptProcessingException

    mm.load_models_gpu = load_models_gpu
    mm.free_memory = lambda memory_required, device: []
    mm.unload_all_models = mm.current_loaded_models.clear
    mm.interrupt_current_processing = interrupt_current_processing
    mm.throw_exception_if_processing_interrupted = throw_exception_if_processing_interrupted
    mm.processing_interrupted = lambda: mm.interrupted
    return mm
