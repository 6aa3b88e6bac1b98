"""Damaged peft adapters: a small real one for the packaged model with one thing wrong, merged as the user would."""

from __future__ import annotations

import json
import pickle
import re
import shutil
import tempfile
import warnings
from functools import cache, partial
from pathlib import Path
from typing import Any

from safetensors import safe_open

from .byte_damage import byte_damages, file_damages
from .case import VALUES, Case, Damage, Family, chosen, rng_of
from .checkpoints import ALLOWED, healthy
from .hostile import MARK, RunsCode
from .json_damage import deletions, text_damages, value_damages, write_json
from .profiles import profile
from .scoring import scored
from .tensor_damage import header_damages, tensor_damages

NUMBER = {"short": 30, "long": 600}
CONFIG, WEIGHTS, PROFILE = "adapter_config.json", "adapter_model.safetensors", "qsit.json"

_SPECIAL: dict[str, dict[str, Any]] = {
    "alpha 1e30": {"lora_alpha": 1e30},
    "alpha 1e308": {"lora_alpha": 1e308},
    "alpha NaN": {"lora_alpha": float("nan")},
    "r 0": {"r": 0},
    "r -1": {"r": -1},
    "r 10**9": {"r": 10**9},
    "r 10**6 for one layer": {"rank_pattern": {"q_proj": 10**6}},
    "alpha 1e30 for one layer": {"alpha_pattern": {"q_proj": 1e30}},
    "target modules (a+)+$": {"target_modules": r"(.+)+\.(.+)+\.(.+)+q_proj$X"},
    "target modules (.*)*": {"target_modules": r"(.*)*(.*)*(.*)*(.*)*!"},
    "target modules of nested groups": {"target_modules": r"^(([a-z_.0-9])+.)+([A-Z]([a-z_.0-9])+)+$"},
    "target modules that do not parse": {"target_modules": "(((["},
    "target modules of 10**5 groups": {"target_modules": "(" * 10**5 + "q_proj" + ")" * 10**5},
    "target modules all-linear": {"target_modules": "all-linear"},
    "target modules nowhere": {"target_modules": ["nowhere"]},
    "target modules everywhere": {"target_modules": ".*"},
    "excluded modules (a+)+$": {"exclude_modules": r"([a-z_.0-9]+)+!"},
    "rank pattern (a+)+$": {"rank_pattern": {r"(([a-z_.0-9])+)+!": 2}},
    "layers_to_transform -1": {"layers_to_transform": [-1]},
    "layers_pattern (a+)+$": {"layers_to_transform": [0], "layers_pattern": r"(([a-z_.0-9])+)+!"},
    "modules_to_save": {"modules_to_save": ["lm_head", "embed_tokens"]},
    "another method": {"peft_type": "PREFIX_TUNING", "num_virtual_tokens": 10**9},
    "an unknown method": {"peft_type": "MAGIC"},
    "method IA3": {"peft_type": "IA3", "feedforward_modules": []},
    "dora": {"use_dora": True},
    "rslora": {"use_rslora": True},
    "initial weights pissa": {"init_lora_weights": "pissa"},
    "initial weights eva": {"init_lora_weights": "eva"},
    "initial weights loftq": {"init_lora_weights": "loftq", "loftq_config": {"loftq_bits": 4}},
    "auto_mapping": {"auto_mapping": {"base_model_class": "Evil", "parent_library": "evil"}},
    "a base of another name": {"base_model_name_or_path": "../../../etc", "revision": "x" * 10**5},
    "trainable tokens": {"trainable_token_indices": [0, 10**9]},
    "megatron": {"megatron_config": {"a": 1}, "megatron_core": "os"},
    "layer replication": {"layer_replication": [[0, 10**9]]},
    "layer replication, small": {"layer_replication": [[0, 2], [1, 3]]},
    "a runtime config": {"runtime_config": {"ephemeral_gpu_offload": True}},
    "bias all": {"bias": "all"},
    "bias lora_only": {"bias": "lora_only"},
    "bias of a lora": {"lora_bias": True},
    "target_parameters": {"target_parameters": ["image_newline"]},
    "fan_in_fan_out": {"fan_in_fan_out": True},
    "dropout 2": {"lora_dropout": 2.0},
}


def prepare() -> None:
    healthy_adapter()


def case(number: int, seed: int) -> Case:
    damages = chosen(families(), number, seed)
    return Case("; ".join(d.label for d in damages), lambda folder: _run(folder, damages, number, seed), ALLOWED)


def _run(folder: Path, damages: list[Damage], number: int, seed: int) -> str:
    adapter = folder / "adapter"
    shutil.copytree(healthy_adapter(), adapter)
    rng = rng_of(number, seed)
    for damage in damages:
        damage.apply(adapter, rng)
    return scored(folder, healthy(folder), adapter=adapter)


@cache
def families() -> dict[str, Family]:
    adapter = healthy_adapter()
    documents = {CONFIG: json.loads((adapter / CONFIG).read_text(encoding="utf-8"))}
    special = [Damage(f"{CONFIG}: {kind}", partial(_special, change)) for kind, change in _SPECIAL.items()]
    special.append(Damage("adapter_model.bin instead", _pickled))
    return {
        VALUES: Family(6, value_damages(documents)),
        "special": Family(5, special),
        "left out": Family(1, deletions(documents)),
        "broken text": Family(1, text_damages({**documents, PROFILE: profile()})),
        "tensors": Family(3, tensor_damages(WEIGHTS, _groups(adapter))),
        "header": Family(1, header_damages(WEIGHTS)),
        "bytes": Family(1, byte_damages([CONFIG, WEIGHTS])),
        "files": Family(1, file_damages([CONFIG, WEIGHTS, PROFILE])),
    }


@cache
def healthy_adapter() -> Path:
    """A LoRA of rank 4 on the queries and values of both towers, with small weights from a fixed seed.

    Made once a process. Raises ImportError without peft.
    """
    import peft
    import torch

    import qsit_plugin

    folder = Path(tempfile.mkdtemp(prefix="qsit-fuzz-adapter-"))
    model = qsit_plugin.load(healthy(folder), device="cpu").checkpoint.model
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        settings = peft.LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"])
        wrapped = peft.get_peft_model(model, settings)
        generator = torch.Generator().manual_seed(0)
        for name, weight in wrapped.named_parameters():
            if "lora_" in name:
                weight.data.copy_(0.02 * torch.randn(weight.shape, generator=generator))
        wrapped.save_pretrained(str(folder), save_embedding_layers=False)
    shutil.rmtree(folder / "checkpoint")
    stored = json.loads((folder / CONFIG).read_text(encoding="utf-8"))  # peft writes a set in any order
    write_json(folder / CONFIG, stored | {"target_modules": sorted(stored["target_modules"])})
    return folder


def _groups(adapter: Path) -> dict[str, list[str]]:
    with safe_open(adapter / WEIGHTS, "pt") as file:
        names = sorted(file.keys())
    groups = {"vision A": r".*vision.*lora_A", "vision B": r".*vision.*lora_B"}
    groups |= {"text A": r".*language.*lora_A", "text B": r".*language.*lora_B"}
    return {group: [name for name in names if re.match(pattern, name)] for group, pattern in groups.items()}


def _special(change: dict[str, Any], folder: Path, _: Any) -> None:
    write_json(folder / CONFIG, json.loads((folder / CONFIG).read_text(encoding="utf-8")) | change)


def _pickled(folder: Path, _: Any) -> None:
    (folder / WEIGHTS).unlink()
    (folder / "adapter_model.bin").write_bytes(pickle.dumps(RunsCode(str(folder.parent / MARK))))
