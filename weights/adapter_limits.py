"""Checks of a peft adapter's ``adapter_config.json``, before peft builds anything from it.

peft takes names of modules as regular expressions, and an untrusted expression may never finish. So only plain names
reach peft; where the config has an expression, the names are those that the adapter's own tensors carry.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from qsit_plugin.weights.config_limits import is_whole
from qsit_plugin.weights.errors import WeightsError, short
from qsit_plugin.weights.json_file import read_json

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"

STRONGEST = 1000.0
"""``lora_alpha / r``, by which an adapter's change is multiplied; 1 to 4 is usual, and a damaged file may say 1e30."""

_PLAIN = re.compile(r"[\w.\-]{1,512}")
_REFUSED = ("layer_replication", "megatron_config")
"""They build other models than the checkpoint's, or import a module by its name."""


def check_adapter_config(folder: Path, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raise WeightsError, naming every setting at fault, unless peft can build a LoRA from it that fits its tensors.

    ``shapes``: of the tensors of adapter_model.safetensors, by name.
    """
    content = read_json(folder / CONFIG)
    problems = [f"{key} is not known" for key in _REFUSED if content.get(key)]
    if content.get("peft_type") != "LORA":
        problems.append(f"peft_type must be LORA; got {short(content.get('peft_type'))}")
    for key in ("modules_to_save", "rank_pattern", "alpha_pattern", "target_modules"):
        names = content.get(key)
        if key == "target_modules" and isinstance(names, str):
            continue
        if not isinstance(names, (list, dict, type(None))) or not all(map(_is_plain, names or ())):
            problems.append(f"{key} must hold plain names of modules; got {short(names)}")
    if not problems:
        problems = _strength_problems(content, shapes)
    if problems:
        raise WeightsError(
            f"{folder / CONFIG}: {'; '.join(problems)}. Save the adapter again with peft's save_pretrained"
        )


def adapted_modules(names: Iterable[str]) -> list[str]:
    """The modules that an adapter changes, by the names of its tensors."""
    found = (re.fullmatch(r"base_model\.model\.(.+?)\.lora_\w+(\.\w+)*", name) for name in names)
    return sorted({match[1] for match in found if match})


def _strength_problems(content: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
    ranks = [content.get("r", 8), *(content.get("rank_pattern") or {}).values()]
    alphas = [content.get("lora_alpha", 8), *(content.get("alpha_pattern") or {}).values()]
    stored = max((shape[0] for name, shape in shapes.items() if ".lora_" in name and "_A" in name and shape), default=0)
    if not all(is_whole(rank, 1) for rank in ranks) or max(ranks) > stored:
        return [f"r and rank_pattern must be ranks from 1 to that of the tensors, {stored}; got {short(ranks)}"]
    if not all(_is_strength(alpha, min(ranks)) for alpha in alphas):
        least = f"lora_alpha and alpha_pattern must be from 0 to {STRONGEST:g} times the rank {min(ranks)}"
        return [f"{least}; got {short(alphas)}"]
    return []


def _is_plain(name: Any) -> bool:
    return isinstance(name, str) and _PLAIN.fullmatch(name) is not None


def _is_strength(alpha: Any, rank: int) -> bool:
    return isinstance(alpha, (int, float)) and not isinstance(alpha, bool) and 0 <= alpha <= STRONGEST * rank
