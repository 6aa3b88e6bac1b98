"""Merges a peft adapter into a model; peft is imported only when an adapter is given."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError, safe_open

from qsit_plugin.weights.errors import WeightsError, first_line

if TYPE_CHECKING:
    from transformers import LlavaOnevisionForConditionalGeneration


def merge_adapter(
    model: LlavaOnevisionForConditionalGeneration, adapter: str | os.PathLike[str]
) -> LlavaOnevisionForConditionalGeneration:
    """The model with a peft adapter merged into its weights. Only safetensors, and every tensor must find its place."""
    folder = Path(adapter)
    weights = folder / "adapter_model.safetensors"
    if not (folder / "adapter_config.json").is_file() or not weights.is_file():
        raise WeightsError(
            f"{folder} is not a peft adapter in safetensors: it needs adapter_config.json and {weights.name} (pickled "
            "adapters are refused; save it again with peft's save_pretrained)"
        )
    try:
        import peft
    except ImportError:
        raise WeightsError("an adapter needs the peft package; run: pip install peft") from None
    try:
        wrapped = peft.PeftModel.from_pretrained(model, str(folder), local_files_only=True)
        with safe_open(weights, "pt") as file:
            stored = set(file.keys())
        known = set(peft.get_peft_model_state_dict(wrapped))
        if stored != known:
            raise ValueError(f"{len(known ^ stored)} of its tensors do not match, first: {min(known ^ stored)}")
        return wrapped.merge_and_unload(safe_merge=True)
    except (ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise WeightsError(
            f"adapter {folder} does not fit this checkpoint ({first_line(error)}); use the base model that its "
            "adapter_config.json names"
        ) from error
