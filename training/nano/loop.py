"""What nano's stages have in common: settings, the training loop, its log, and the state that a stopped stage resumes.

Batches follow from (seed, step) alone, so a resumed stage ends with the weights of an uninterrupted one.
"""

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

from qsit_plugin.row_file import replacing


@dataclass(frozen=True)
class Stage:
    """Settings of every stage; each stage adds its own and has other defaults."""

    steps: int
    learning_rate: float
    seed: int = 0
    threads: int = 1
    bfloat16: bool = False
    """Twice as fast where the processor has AVX512-BF16 or AMX, half as fast where it has not."""

    def begin(self) -> None:
        """Set the threads and the seed of this process."""
        torch.set_num_threads(self.threads)
        torch.manual_seed(self.seed)

    def autocast(self) -> torch.autocast:
        return torch.autocast("cpu", torch.bfloat16, enabled=self.bfloat16)


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
    """A Stage, with ``save_every`` where there is a state: steps between two; the last step has one, too."""
    modules: Sequence[nn.Module]
    """What the state holds beside the optimizers and the random generator."""
    optimizers: Sequence[torch.optim.Optimizer]
    log: Log
    state: Path | None = None
    step: int = 0
    items: int = 0
    begun: float = 0.0

    def over(self, batches: Callable[[int, int], Iterable[Any]]) -> Iterator[tuple[int, Any]]:
        """The steps that are left, from 0, each with its batch. ``batches``: those from one step up to another."""
        self.step = self.load()
        self.begun = time.monotonic()
        for batch in batches(self.step, self.stage.steps):
            yield self.step, batch
            if self.state and self.saves:
                self.save(self.state)
            self.step += 1

    @property
    def saves(self) -> bool:
        """Whether this step is followed by a state."""
        return (self.step + 1) % self.stage.save_every == 0 or self.step + 1 == self.stage.steps

    def descend(
        self, rate: float, losses: dict[str, torch.Tensor], items: int = 1, clipped: nn.Module | None = None
    ) -> None:
        """Minimise the sum of the losses at this learning rate, of which every group takes its factor, and log.

        ``items``: how many of what the log counts the batch has. ``clipped``: whose gradients together have a norm of 1
        at most; by default all modules.
        """
        for optimizer in self.optimizers:
            optimizer.zero_grad()
            for group in optimizer.param_groups:
                group["lr"] = rate * group["factor"]
        torch.stack(list(losses.values())).sum().backward()
        bounded = self.modules if clipped is None else [clipped]
        nn.utils.clip_grad_norm_([weight for module in bounded for weight in module.parameters()], 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
        self.items += items
        speed = self.items / max(time.monotonic() - self.begun, 1e-9)
        self.log(self.step + 1, {name: loss.item() for name, loss in losses.items()}, speed)

    def save(self, path: Path) -> None:
        """Write the state, beside ``path`` and moved there, so that a kill leaves the last one whole."""
        state = {
            "step": self.step + 1,
            "modules": [module.state_dict() for module in self.modules],
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "random": torch.get_rng_state(),
        }
        with replacing(path) as fresh:
            torch.save(state, fresh)

    def load(self) -> int:
        """Restore what ``save`` wrote; the number of steps that are done, 0 where there is no state."""
        if not self.state or not self.state.exists():
            return 0
        state = torch.load(self.state, weights_only=True)
        for name in ("modules", "optimizers"):
            for one, values in zip(getattr(self, name), state[name], strict=True):
                one.load_state_dict(values)
        torch.set_rng_state(state["random"])
        return int(state["step"])


def log_means(steps: int, every: int, speed: str, keep: float | None = 0.98) -> Log:
    """A line every few steps: means of the losses, and the ``speed``, as in ``"{:.1f} images/s"``. The means are
    exponential ones, which ``keep`` so much of the last; without it they are over the steps since the last line."""
    means: dict[str, float] = {}
    recent: deque[dict[str, float]] = deque(maxlen=every)

    def log(step: int, losses: dict[str, float], rate: float) -> None:
        recent.append(losses)
        for name, loss in losses.items():
            old = means.get(name, loss)
            mean = keep * old + (1 - keep) * loss if keep else np.mean([one[name] for one in recent if name in one])
            means[name] = float(mean)
        if step % every == 0:
            shown = " ".join(f"{name} {mean:.3f}" for name, mean in means.items())
            print(f"step {step} of {steps} {shown} {speed.format(rate)}", flush=True)

    return log
