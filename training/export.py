"""The result of a run: a checkpoint folder that both generations of transformers load, or an adapter."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from qsit_plugin.checkpoint import Checkpoint, read_preprocessor, save_portable
from qsit_plugin.protocol import ScoreProfile, kind_of_scope
from qsit_plugin.weights.json_file import read_json

from .config import RunConfig


def result_profile(profile: ScoreProfile, scope: str | None, scope_kind: str | None) -> ScoreProfile:
    """The profile of the result: without calibrations, which were fitted to the model as it was before.

    Its kind of scope is always written: the one given, else that of the text given, else the profile's.
    """
    kind = scope_kind or (kind_of_scope(scope) if scope else profile.kind)
    return replace(profile, scales={}, scope=scope or profile.scope, scope_kind=kind)


def result_dtype(config: RunConfig, base: Path) -> torch.dtype:
    """As the config says, else as the base checkpoint's file says, else float32."""
    content = read_json(base / "config.json")
    name = config.result_dtype or content.get("dtype") or content.get("torch_dtype") or "float32"
    return getattr(torch, str(name))


def export(
    model: Any,
    checkpoint: Checkpoint,
    config: RunConfig,
    folder: Path,
    gathered: Mapping[str, torch.Tensor] | None = None,
) -> Path:
    """Write the trained model into a new folder and return it.

    ``model``: unwrapped, with its adapter if it has one. Merging changes the model: this is the last use of it.
    ``gathered``: the whole state where the model itself is sharded.
    """
    profile = result_profile(checkpoint.profile, config.scope, config.scope_kind)
    if not config.merged:
        state = None if gathered is None else dict(gathered)
        model.save_pretrained(folder, state_dict=state, save_embedding_layers=False)  # "auto" asks the Hub each time
        (folder / "README.md").unlink(missing_ok=True)  # peft's empty form
        _sort_targets(folder / "adapter_config.json")
        profile.save(folder)
        return folder
    if gathered is not None:
        model = checkpoint.model if config.method == "full" else model
        model.load_state_dict(gathered, strict=False)
    plain = model.merge_and_unload(safe_merge=True) if config.method == "lora" else model
    return save_portable(
        plain,
        checkpoint.tokenizer,
        folder,
        profile=profile,
        preprocessor=read_preprocessor(checkpoint.folder),
        chat_template=checkpoint.chat_template,
        dtype=result_dtype(config, checkpoint.folder),
    )


def _sort_targets(path: Path) -> None:
    """The same run writes the same file: peft keeps some settings as sets, whose order differs from run to run."""
    content = json.loads(path.read_text(encoding="utf-8"))
    for name, value in content.items():
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            content[name] = sorted(value)
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
