"""tmp"""

from __future__ import annotations

from typing import Any

from qsit_plugin.checkpoint import Checkpoint

from .config import RunConfig


def open_base(config: RunConfig, *, bf16: bool) -> Checkpoint:
    import torch

    from qsit_plugin.checkpoint import open_checkpoint
    from qsit_plugin.weights import resolve

    frozen_half = config.method == "lora" and bf16
    return open_checkpoint(
        resolve(config.base),
        name=config.base,
        device=torch.device("cpu"),
        dtype=torch.bfloat16 if frozen_half else torch.float32,
        profile=config.profile,
    )


def make_trainable(config: RunConfig, checkpoint: Checkpoint) -> Any:
    """The model with what is to be trained released, under an adapter for lora."""
    from .lora import with_adapter
    from .parameters import release

    model = checkpoint.model
    if config.gradient_checkpointing:
        if hasattr(model, "activation_checkpointing_enable"):  # its name in later transformers
            model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
        else:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    if config.method == "lora":
        return with_adapter(model, config, config.base)
    release(model, config.trained_parts)
    return model
