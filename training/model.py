"""The model of a run: the base as it is opened, and what of it is made trainable: its own weights, or LoRA's."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any

import torch
from transformers.utils import is_flash_attn_2_available

from qsit_plugin.checkpoint import Checkpoint, open_checkpoint
from qsit_plugin.checkpoint.adapter import attach_adapter, import_peft, wrapping
from qsit_plugin.protocol import FILE_NAME
from qsit_plugin.weights import resolve
from qsit_plugin.weights.adapter_limits import CONFIG
from qsit_plugin.weights.catalogue import ENTRIES
from qsit_plugin.weights.json_file import read_json

from .config import LORA, ConfigError, RunConfig
from .parameters import part_of, set_trainable

TARGETS = {
    "language": r".*language_model\.layers\.\d+\..*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)",
    "vision": r".*vision_tower\..*\.layers\.\d+\..*\.(q_proj|k_proj|v_proj|out_proj|fc1|fc2)",
}
"""Linear layers by their path: names such as q_proj occur in the vision tower, too."""
PROJECTOR = "multi_modal_projector"


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


# ---- LoRA ----


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
