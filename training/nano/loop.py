"""The training loop of nano's stages: data, losses and learning rate are theirs, what they have in common is here."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim import Optimizer

from .optimizers import set_rate
from .state import load_state, save_state

Log = Callable[[int, dict[str, float], float], None]
"""Takes the number of steps that are done, the losses of the last one, and items a second in this run."""


class Numbered(torch.utils.data.Dataset):
    """Batches by number: every batch follows from (seed, number), whoever makes it and when."""

    def loader(self, start: int, stop: int) -> torch.utils.data.DataLoader:
        """Batches ``start`` to ``stop``, made by one process beside this one."""
        return torch.utils.data.DataLoader(self, sampler=range(start, stop), batch_size=None, num_workers=1)


@dataclass
class Loop:
    """The steps of a stage, from the last state on: the caller's body computes the losses and calls ``descend``."""

    stage: Any
    """Has ``steps``, and ``save_every``: steps between two states; the last step has one, too."""
    modules: Sequence[nn.Module]
    """What the state holds beside the optimizers and the random generator."""
    optimizers: Sequence[Optimizer]
    log: Log
    state: Path | None = None
    step: int = 0
    items: int = 0
    begun: float = 0.0

    def over(self, batches: Callable[[int, int], Iterable[Any]]) -> Iterator[tuple[int, Any]]:
        """The steps that are left, from 0, each with its batch. ``batches``: those from one step up to another."""
        first = load_state(self.state, self.modules, self.optimizers) if self.state else 0
        self.begun = time.monotonic()
        for step, batch in enumerate(batches(first, self.stage.steps), start=first):
            self.step = step
            yield step, batch
            if self.state and self.saves:
                save_state(self.state, step + 1, self.modules, self.optimizers)

    @property
    def saves(self) -> bool:
        """Whether this step is followed by a state."""
        return (self.step + 1) % self.stage.save_every == 0 or self.step + 1 == self.stage.steps

    def descend(
        self, rate: float, losses: dict[str, torch.Tensor], items: int = 1, clipped: nn.Module | None = None
    ) -> None:
        """Minimise the sum of the losses at this learning rate, and log.

        ``items``: how many of what the log counts the batch has. ``clipped``: whose gradients together have a norm of 1
        at most; by default all modules.
        """
        set_rate(self.optimizers, rate)
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        bounded = self.modules if clipped is None else [clipped]
        nn.utils.clip_grad_norm_([weight for module in bounded for weight in module.parameters()], 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
        self.items += items
        speed = self.items / max(time.monotonic() - self.begun, 1e-9)
        self.log(self.step + 1, {name: loss.item() for name, loss in losses.items()}, speed)


def moving_means(steps: int, every: int, speed: str, keep: float = 0.98) -> Log:
    """A line every few steps: exponential means of the losses, and the ``speed``, as in ``"{:.1f} images/s"``."""
    means: dict[str, float] = {}

    def log(step: int, losses: dict[str, float], rate: float) -> None:
        means.update({name: keep * means.get(name, loss) + (1 - keep) * loss for name, loss in losses.items()})
        if step % every == 0:
            told = " ".join(f"{name} {mean:.3f}" for name, mean in means.items())
            print(f"step {step} of {steps} {told} {speed.format(rate)}", flush=True)

    return log


def recent_means(steps: int, told: Callable[[list[float]], str]) -> Log:
    """A line every 50 steps: what is ``told`` of the losses' means over these, and the seconds of a step."""
    recent = deque[list[float]](maxlen=50)

    def log(step: int, losses: dict[str, float], rate: float) -> None:
        recent.append(list(losses.values()))
        if step % 50 == 0:
            means = np.mean(recent, 0).round(3).tolist()
            print(f"step {step} of {steps} {told(means)} {1 / rate:.2f} s", flush=True)

    return log
