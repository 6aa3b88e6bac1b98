"""The state of a training stage on disk: a stage that was stopped goes on where its last state was written.

With data that follow from (seed, step) alone, a resumed stage ends with the weights of an uninterrupted one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from torch import nn


def save_state(path: Path, step: int, modules: Sequence[nn.Module], optimizer: torch.optim.Optimizer) -> None:
    """After ``step`` steps. Written beside its place and moved there, so that a kill leaves the last one whole."""
    partial = path.with_suffix(".partial")
    state = {
        "step": step,
        "modules": [module.state_dict() for module in modules],
        "optimizer": optimizer.state_dict(),
        "random": torch.get_rng_state(),
    }
    torch.save(state, partial)
    partial.replace(path)


def load_state(path: Path, modules: Sequence[nn.Module], optimizer: torch.optim.Optimizer) -> int:
    """Restore what save_state wrote, and return the number of steps that are done; 0 where there is no state."""
    if not path.exists():
        return 0
    state = torch.load(path, weights_only=True)
    for module, weights in zip(modules, state["modules"], strict=True):
        module.load_state_dict(weights)
    optimizer.load_state_dict(state["optimizer"])
    torch.set_rng_state(state["random"])
    return int(state["step"])


def adamw(parameters: Iterable[nn.Parameter]) -> torch.optim.AdamW:
    """Weight decay for matrices, none for vectors; the learning rate is set at every step."""
    every = list(parameters)
    groups = [
        {"params": [p for p in every if p.ndim > 1], "weight_decay": 0.05},
        {"params": [p for p in every if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, betas=(0.9, 0.98))


def cosine(step: int, steps: int, warmup: int) -> float:
    """Share of the learning rate at a step: a linear rise over the first ``warmup`` steps, then half a cosine to 0."""
    return min(1.0, (step + 1) / warmup) * 0.5 * (1 + math.cos(math.pi * step / steps))
