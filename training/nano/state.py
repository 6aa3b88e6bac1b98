"""The state of a training stage on disk: a stage that was stopped goes on where its last state was written.

With data that follow from (seed, step) alone, a resumed stage ends with the weights of an uninterrupted one.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn
from torch.optim import Optimizer

from qsit_plugin.row_file import replacing


def save_state(path: Path, step: int, modules: Sequence[nn.Module], optimizers: Sequence[Optimizer]) -> None:
    """After ``step`` steps. Written beside its place and moved there, so that a kill leaves the last one whole."""
    state = {
        "step": step,
        "modules": [module.state_dict() for module in modules],
        "optimizers": [optimizer.state_dict() for optimizer in optimizers],
        "random": torch.get_rng_state(),
    }
    with replacing(path) as fresh:
        torch.save(state, fresh)


def load_state(path: Path, modules: Sequence[nn.Module], optimizers: Sequence[Optimizer]) -> int:
    """Restore what save_state wrote, and return the number of steps that are done; 0 where there is no state."""
    if not path.exists():
        return 0
    state = torch.load(path, weights_only=True)
    for module, weights in zip(modules, state["modules"], strict=True):
        module.load_state_dict(weights)
    for optimizer, found in zip(optimizers, state["optimizers"], strict=True):
        optimizer.load_state_dict(found)
    torch.set_rng_state(state["random"])
    return int(state["step"])
