"""LoRA where it is meant to be: names like q_proj occur in the vision tower, too, so parts are told apart by path."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from qsit_plugin.checkpoint.adapter import attach_adapter, import_peft, wrapping
from qsit_plugin.weights.adapter_limits import CONFIG
from qsit_plugin.weights.catalogue import ENTRIES
from qsit_plugin.weights.json_file import read_json

from .config import LORA, ConfigError, RunConfig
from .parameters import part_of

TARGETS = {
    "language": r".*language_model\.layers\.\d+\..*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)",
    "vision": r".*vision_tower\..*\.layers\.\d+\..*\.(q_proj|k_proj|v_proj|out_proj|fc1|fc2)",
}
PROJECTOR = "multi_modal_projector"


def with_adapter(model: Any, config: RunConfig) -> Any:
    """The model with an adapter (peft), new or that of ``config.adapter``; everything else is frozen.

    The projector is small and is trained whole, as a copy inside the adapter. What is trained is float32, whatever the
    model is. Raises ConfigError where the projector is the only part: nothing is then of low rank; and for an adapter
    of another base or with other settings. Raises WeightsError for one that cannot be read or does not fit.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)  # the low-rank matrices begin at random
        wrapped = _new(model, config) if config.adapter is None else _further(model, config, Path(config.adapter))
    wrapped.peft_config["default"].base_model_name_or_path = config.base
    trained = set()
    for name, weight in wrapped.named_parameters():
        if weight.requires_grad:
            weight.data = weight.data.float()
            trained.add(part_of(name))
    wanted = config.parts if config.adapter else config.trained_parts
    if wanted is not None and trained != set(wanted):
        raise ConfigError(f"the adapter reaches {sorted(trained)} of this model, not {sorted(wanted)}, the parts")
    return wrapped


def _new(model: Any, config: RunConfig) -> Any:
    peft, parts = import_peft(), config.trained_parts
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
    with wrapping():
        return peft.get_peft_model(model, settings)


def _further(model: Any, config: RunConfig, folder: Path) -> Any:
    if not (folder / CONFIG).is_file():
        raise ConfigError(f"adapter: {folder} holds no adapter ({CONFIG}); give the folder that a run of lora wrote")
    stored = read_json(folder / CONFIG)
    base = stored.get("base_model_name_or_path")
    if base and not _is_same(str(base), config.base):
        raise ConfigError(
            f"the adapter {folder} is of {base}, and base is {config.base}: give base: {base}. Where both are the same "
            f"weights, write the new name into {folder / CONFIG} as base_model_name_or_path"
        )
    wrapped = attach_adapter(model, folder)
    found = wrapped.peft_config["default"]
    found.target_modules = stored["target_modules"]  # the expression again: names are of this generation only
    for name, value in zip(LORA, (found.r, found.lora_alpha, found.lora_dropout), strict=True):
        if getattr(config, name) not in (None, value):
            raise ConfigError(f"{name} is {getattr(config, name)}, but {value} in {folder}, which holds: take it out")
    return wrapped


def _is_same(one: str, other: str) -> bool:
    """Whether two names may be of one checkpoint: the same last part, of a Hub id or a folder, or the same folder."""
    first, second = (Path((ENTRIES[name].repo or name) if name in ENTRIES else name) for name in (one, other))
    return first.name == second.name or (first.exists() and second.exists() and first.samefile(second))
