"""LoRA where it is meant to be: names like q_proj occur in the vision tower, too, so parts are told apart by path."""

from __future__ import annotations

from typing import Any

import torch

from qsit_plugin.checkpoint.adapter import import_peft, wrapping

from .config import ConfigError, RunConfig
from .parameters import part_of

TARGETS = {
    "language": r".*language_model\.layers\.\d+\..*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)",
    "vision": r".*vision_tower\..*\.layers\.\d+\..*\.(q_proj|k_proj|v_proj|out_proj|fc1|fc2)",
}
PROJECTOR = "multi_modal_projector"


def with_adapter(model: Any, config: RunConfig, base: str) -> Any:
    """The model with a new adapter (peft) on the parts of the config, everything else frozen.

    The projector is small and is trained whole, as a copy inside the adapter. ``base``: what the adapter is of, for its
    adapter_config.json. What is trained is float32, whatever the model is. Raises ConfigError where the projector is
    the only part: nothing is then of low rank.
    """
    peft = import_peft()
    parts = config.trained_parts
    targets = [TARGETS[part] for part in parts if part in TARGETS]
    if not targets:
        raise ConfigError("method lora needs language or vision in parts; for the projector alone give method: full")
    settings = peft.LoraConfig(
        r=config.lora_rank,
        lora_alpha=config.lora_alpha,
        lora_dropout=config.lora_dropout,
        target_modules="|".join(targets),
        modules_to_save=[PROJECTOR] if "projector" in parts else None,
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng(devices=[]), wrapping():
        torch.manual_seed(config.seed)  # the low-rank matrices begin at random
        wrapped = peft.get_peft_model(model, settings)
    wrapped.peft_config["default"].base_model_name_or_path = base
    for weight in wrapped.parameters():
        if weight.requires_grad:
            weight.data = weight.data.float()
    trained = {part_of(name) for name, weight in wrapped.named_parameters() if weight.requires_grad}
    if trained != set(parts):
        raise ConfigError(f"the adapter reaches {sorted(trained)} of this model, not {sorted(parts)}")
    return wrapped
