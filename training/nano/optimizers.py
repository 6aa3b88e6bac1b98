"""The optimizers of nano's stages, AdamW and beside it Muon for the matrices of hidden layers, and learning rates.

From scratch, 240 steps of 128 views left the vision tower's loss at 5.48 with AdamW alone and at 5.10 with Muon (rank
correlation .40 and .45, naming .38 and .42; AMD EPYC, one thread, 2026-11-24). Muon's own work is a tenth of a step.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

MUON = 8.0
"""Muon's learning rate over that of AdamW: its step is a share of a matrix' norm, not of each weight's deviation."""

BETAS = (0.9, 0.98)
"""AdamW's."""

DECAY = 0.3
"""Share of the steps, the last ones, over which ``trapezoid`` falls to zero."""


def is_hidden(name: str, parameter: nn.Parameter) -> bool:
    """Whether Muon takes it: a matrix inside ``layers``, neither an embedding nor a head."""
    return parameter.ndim == 2 and "layers." in name


def adamw(parameters: Iterable[nn.Parameter]) -> torch.optim.AdamW:
    """Weight decay for matrices, none for vectors."""
    every = list(parameters)
    groups = [
        {"params": [p for p in every if p.ndim > 1], "weight_decay": 0.05, "factor": 1.0},
        {"params": [p for p in every if p.ndim <= 1], "weight_decay": 0.0, "factor": 1.0},
    ]
    return torch.optim.AdamW(groups, betas=BETAS)


def muon(groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """Raises RuntimeError where torch is older than 2.9, which has no Muon."""
    if not hasattr(torch.optim, "Muon"):
        raise RuntimeError(
            f"nano's training needs torch 2.9 or later, this is {torch.__version__}: pip install -U torch"
        )
    return torch.optim.Muon(groups, weight_decay=0.05)


def muon_and_adamw(model: nn.Module) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside ``layers``, AdamW for the embeddings, heads and vectors."""
    named = list(model.named_parameters())
    hidden = [p for name, p in named if is_hidden(name, p)]
    return [muon([{"params": hidden, "factor": MUON}]), adamw(p for name, p in named if not is_hidden(name, p))]


def cosine(step: int, steps: int, warmup: int) -> float:
    """Share of the learning rate at a step: a linear rise over the first ``warmup`` steps, then half a cosine to 0."""
    return min(1.0, (step + 1) / warmup) * 0.5 * (1 + math.cos(math.pi * step / steps))


def trapezoid(step: int, steps: int) -> float:
    """Share of the learning rate: a linear rise over 100 steps, constant, and a linear fall at the end. A run that is
    stopped before the fall goes on with more or fewer steps as if it had been started with them."""
    return min(1.0, (step + 1) / 100, (steps - step) / (DECAY * steps))
