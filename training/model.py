"""The model of a run: the base as it is opened, and what of it is made trainable."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any

import torch
from transformers.utils import is_flash_attn_2_available

from qsit_plugin.checkpoint import Checkpoint, open_checkpoint
from qsit_plugin.checkpoint.adapter import import_peft
from qsit_plugin.protocol import FILE_NAME
from qsit_plugin.weights import resolve

from .config import ConfigError, RunConfig
from .lora import with_adapter
from .parameters import set_trainable


def open_base(config: RunConfig, *, bf16: bool) -> Checkpoint:
    """The checkpoint that a run starts from, frozen; where it goes on from an adapter, with that adapter's profile.

    ``bf16``: whether the run computes in bfloat16; the base of lora is then kept in it. The weights are on the CPU, but
    4-bit ones on the process's GPU where there is one, which quantises them far faster. Raises ConfigError for a
    package that is missing; WeightsError and ProfileError for a checkpoint that cannot be opened.
    """
    if config.load_in_4bit and importlib.util.find_spec("bitsandbytes") is None:
        raise ConfigError("load_in_4bit needs bitsandbytes: run pip install bitsandbytes, or take load_in_4bit out")
    if config.attn_implementation == "flash_attention_2" and not is_flash_attn_2_available():
        raise ConfigError(
            "flash_attention_2 needs the package flash-attn and CUDA: run pip install flash-attn, or give "
            "attn_implementation: sdpa"
        )
    device = torch.device("cpu")
    if config.load_in_4bit and config.device != "cpu" and torch.cuda.is_available():
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
    profile = config.profile
    if profile is None and config.adapter is not None and (Path(config.adapter) / FILE_NAME).is_file():
        profile = config.adapter
    return open_checkpoint(
        resolve(config.base),
        name=config.base,
        device=device,
        dtype=torch.bfloat16 if bf16 and config.method == "lora" else torch.float32,
        profile=profile,
        quantization="4bit" if config.load_in_4bit else None,
        attn_implementation=config.attn_implementation,
    )


def make_trainable(config: RunConfig, checkpoint: Checkpoint) -> Any:
    """The model with what is to be trained, in float32: its own weights for full, those of an adapter for lora.

    Raises ConfigError for an adapter that is not of this base or is not what the settings say, WeightsError for one
    that cannot be read or does not fit.
    """
    model = checkpoint.model
    if config.load_in_4bit:
        _prepare_4bit(model)
    if config.gradient_checkpointing:  # not re-entrant: gradients reach an adapter also where the inputs have none
        if hasattr(model, "activation_checkpointing_enable"):  # its name in later transformers
            model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
        else:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    if config.method == "lora":
        return with_adapter(model, config)
    set_trainable(model, config.trained_parts)
    return model


def _prepare_4bit(model: Any) -> None:
    """As peft does it: what is not in 4 bits is float32, above all the norms and the head."""
    model.is_loaded_in_4bit = True  # by which peft chooses its layers
    import_peft().prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            # such a CPU would pack the weights anew when the model is validated, and could not train on them then
            module.support_avx512bf16_for_cpu = False
