"""Checkpoints on the way: what is trained, by its own names, so that a resumed run goes on bit for bit.

Trainer's own way loses the weights for this architecture without an error (seen with transformers 5.23): it saves them
by the names of the published files and reads them back as if they had the model's, so nothing matches.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .config import ConfigError, RunConfig

if TYPE_CHECKING:  # what is saved is also looked for by a command that was stopped while it imported torch
    import torch

WEIGHTS = "trained.safetensors"
COMPLETE = "complete.json"
FREE = {
    *("save_every", "keep_checkpoints", "log_every", "tensorboard", "workers", "memory_probe", "max_tokens"),
    *("verify_images", "skip_damaged"),
    *("result", "result_dtype", "scope", "output", "images", "base", "data", "profile", "validation"),
}
"""Settings that may differ when a run goes on: the steps that are left stay the same. Folders may have been moved, so
what they hold is compared instead: the rows by their hashes, the base by its fingerprint."""


def save_trained(model: torch.nn.Module, folder: Path, state: Mapping[str, torch.Tensor] | None = None) -> None:
    """Write the trainable weights, or those of a gathered ``state``."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    if state is None:
        state = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    save_file(
        {name: weight.detach().to("cpu").contiguous().clone() for name, weight in state.items()}, folder / WEIGHTS
    )


def load_trained(model: torch.nn.Module, folder: Path) -> None:
    """Put the trainable weights back. Raises ConfigError unless they are exactly those that were saved."""
    import torch
    from safetensors.torch import load_file

    saved = load_file(folder / WEIGHTS)
    known = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    if saved.keys() != known.keys():
        differing = sorted(saved.keys() ^ known.keys())
        raise ConfigError(
            f"{folder} holds other weights than this run trains ({len(differing)} differ, first: {differing[0]}): give "
            "the method, parts and lora_rank that it was begun with"
        )
    with torch.no_grad():
        for name, weight in known.items():
            if saved[name].shape != weight.shape:
                raise ConfigError(f"{folder}: {name} is {tuple(saved[name].shape)} there, {tuple(weight.shape)} here")
            weight.copy_(saved[name])


def fingerprint(model: torch.nn.Module) -> str:
    """A hash of the names, shapes and first values of all weights: enough to tell one checkpoint from another."""
    digest = hashlib.sha256()
    for name, weight in model.named_parameters():
        values = weight.detach().flatten()[:64].float().tolist()
        digest.update(f"{name} {tuple(weight.shape)} {values}".encode())
    return digest.hexdigest()


def mark_complete(folder: Path) -> None:
    """The last file of a checkpoint: without it, the run was killed while it was written."""
    (folder / COMPLETE).write_text("{}\n", encoding="utf-8")


def newest(folder: Path) -> Path | None:
    """The newest complete checkpoint of a run; None where there is none."""
    found = [path.parent for path in folder.glob(f"checkpoint-*/{COMPLETE}")]
    return max(found, key=lambda path: int(path.name.rsplit("-", 1)[1]), default=None)


def check_same(record: Path, config: RunConfig, facts: Mapping[str, Any]) -> None:
    """Raise ConfigError where a run that goes on would not be the one that was begun.

    ``record``: the run.json that ``write_record`` wrote. ``facts``: rows' hashes, number of devices and so on.
    """
    try:
        begun = json.loads(record.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError) as error:
        raise ConfigError(f"{record} of the run to go on with is not readable ({error}): start a new output") from None
    was, now = begun["config"], config.to_dict()
    changed = [
        f"{name} was {was.get(name)!r}, is {now[name]!r}"
        for name in now
        if name not in FREE and was.get(name) != now[name]
    ]
    changed += [
        f"{name} was {begun['facts'].get(name)!r}, is {facts[name]!r}"
        for name in facts
        if begun["facts"].get(name) != facts[name]
    ]
    if changed:
        rows = any(name.startswith("rows was") for name in changed)
        cure = " (for a damaged image take no row out, but give skip_damaged: true)" if rows else ""
        raise ConfigError(
            f"the run in {record.parent} was begun otherwise: {'; '.join(changed)}. Give what it had{cure}, or another "
            "output"
        )


def write_record(record: Path, config: RunConfig, facts: Mapping[str, Any], versions: Mapping[str, str]) -> None:
    content = {"config": config.to_dict(), "facts": dict(facts), "versions": dict(versions)}
    record.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
