"""The training loop: rows in the mixture's order, the loss of a step, and the optimizer.

Of the step of several devices and accumulated batches: the loss is normalised over all of them and soft+rank compares
the ratings of one batch of all devices, so two processes give what one gives with twice the batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch.utils.data import DataLoader

from .config import ConfigError, RunConfig
from .data.collator import Batch, Collator
from .data.dataset import QualityDataset
from .data.sampler import MixtureSampler
from .devices import is_sharded, unwrap
from .forward import forward
from .losses import level_shares, rank_losses, token_losses, total_loss
from .parameters import group_lines, parameter_groups
from .ranking import padded_sources, pair_count, rank_part
from .schedule import factor
from .signals import outlive_a_stop


@dataclass(frozen=True)
class Step:
    """A step that was made. ``loss``: a tensor, so that a GPU is only waited for where it is logged; this device's.
    ``rates``: learning rate of each parameter group, by name."""

    number: int
    loss: torch.Tensor
    grad_norm: float
    rates: dict[str, float]


class Loop:
    """The steps of a run. ``model``: not wrapped; ``wrapped``: as the devices train it, from ``begin`` on.
    ``done``: how many steps are made."""

    wrapped: Any = None
    optimizer: Any = None

    def __init__(
        self,
        config: RunConfig,
        accelerator: Accelerator,
        model: Any,
        *,
        dataset: QualityDataset,
        sampler: MixtureSampler,
        collator: Collator,
        level_ids: Sequence[int],
        say: Callable[[str], None],
    ):
        self.config, self.accelerator, self.model, self.say = config, accelerator, model, say
        self.dataset, self.sampler, self.collator, self.level_ids = dataset, sampler, collator, level_ids
        self.done = 0
        batches = math.ceil(len(sampler) / config.batch_size)
        self.steps_per_epoch = math.ceil(batches / config.gradient_accumulation)
        self.total = config.max_steps or self.steps_per_epoch * config.epochs

    def begin(self) -> None:
        """Seed, wrap the model for its devices, make the optimizer. Raises ConfigError where memory is too small."""
        set_seed(self.config.seed)
        if is_sharded(self.accelerator) and not self.accelerator.is_fsdp2:
            self.wrapped = self.accelerator.prepare(self.model)  # whose parameters are others than before
            self.optimizer = self.accelerator.prepare(self._optimizer(self.wrapped))
        else:
            self.wrapped, self.optimizer = self.accelerator.prepare(self.model, self._optimizer(self.model))
        if self.config.memory_probe:
            self.probe()

    def _optimizer(self, model: Any) -> torch.optim.Optimizer:
        groups = parameter_groups(model, self.config.rates(), self.config.weight_decay)
        for line in group_lines(groups):
            self.say(line)
        return torch.optim.AdamW([{**group, "initial_lr": group["lr"]} for group in groups])

    def end(self) -> None:
        """Let go of the process group."""
        unwrap(self.wrapped)

    # ---- steps ----

    def steps(self) -> Iterator[Step]:
        """Make the steps that are left, from ``done`` on; the caller may save or measure between two of them."""
        self.wrapped.train()
        while self.done < self.total:
            for batches in self.epoch(*divmod(self.done, self.steps_per_epoch)):
                yield self._step(batches)
                if self.done >= self.total:
                    break

    def epoch(self, epoch: int, begun: int = 0) -> Iterator[list[Batch]]:
        """The batches of every step of an epoch that are left after ``begun`` steps of it."""
        self.sampler.set_epoch(epoch)
        rows = begun * self.config.batch_size * self.config.gradient_accumulation
        self.sampler.load_state_dict(self.sampler.state_dict(rows))
        loader = iter(
            DataLoader(
                self.dataset,
                batch_size=self.config.batch_size,
                sampler=self.sampler,  # deals its rows out to the ranks itself: accelerate must not do so once more
                collate_fn=self.collator,
                num_workers=self.config.workers,
                worker_init_fn=outlive_a_stop,
                pin_memory=self.accelerator.device.type == "cuda",
                generator=torch.Generator().manual_seed(0),  # else every epoch draws from the generator of dropout
            )
        )
        try:
            while batches := list(islice(loader, self.config.gradient_accumulation)):
                yield batches
        finally:  # else the traceback of an error would keep the workers to the end of the program
            getattr(loader, "_shutdown_workers", lambda: None)()

    def _step(self, batches: Sequence[Batch]) -> Step:
        amounts = self._amounts(batches)
        loss = torch.zeros((), device=self.accelerator.device)
        for number, batch in enumerate(batches, 1):
            last = number == len(batches)
            with nullcontext() if last else self.accelerator.no_sync(self.wrapped):
                part = self.loss(batch, amounts)
                self.accelerator.backward(part)
            loss += part.detach()
        norm = self.accelerator.clip_grad_norm_(self.wrapped.parameters(), self.config.max_grad_norm)
        share = factor(self.config.schedule, self.done, self.total, self.config.warmup)
        for group in self.optimizer.param_groups:
            group["lr"] = share * group["initial_lr"]
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.done += 1
        rates = {group["name"]: group["lr"] for group in self.optimizer.param_groups}
        return Step(self.done, loss, float(norm), rates)

    # ---- loss ----

    def loss(self, batch: Batch, amounts: torch.Tensor) -> torch.Tensor:
        """This batch's part of the loss of a step. ``amounts``: of all batches of the step, see ``_amounts``."""
        batch = {name: part.to(self.accelerator.device, non_blocking=True) for name, part in batch.items()}
        logits = forward(self.wrapped, batch, self.dataset.tiling)
        losses = token_losses(logits, batch, self.level_ids, soft=self.config.level_loss != "hard")
        loss = total_loss(losses, batch, amounts, self.config.normalize)
        if self.config.level_loss == "soft+rank" and amounts[2] > 0:
            loss = loss + self.config.rank_weight * self._rank_part(logits, batch) / amounts[2]
        # DDP and FSDP average the gradients of the devices; these are parts of one sum
        return loss * self.accelerator.num_processes

    def _rank_part(self, logits: torch.Tensor, batch: Batch) -> torch.Tensor:
        if self.accelerator.num_processes == 1:
            return rank_losses(logits, batch, self.level_ids).sum()
        return rank_part(
            level_shares(logits, batch, self.level_ids),
            batch,
            rows=self.config.batch_size,
            place=self.accelerator.process_index,
            gather=self.accelerator.gather,
        )

    def _amounts(self, batches: Sequence[Batch]) -> torch.Tensor:
        """What the losses of a step are divided by: the ``amounts`` of its batches, summed over all devices."""
        device = self.accelerator.device
        amounts = sum((batch["amounts"].to(device) for batch in batches), torch.zeros(3, device=device))
        if self.accelerator.num_processes == 1:
            return amounts
        amounts = self.accelerator.gather(amounts[None]).sum(0)
        if self.config.level_loss == "soft+rank":  # pairs of two devices are in no device's own amounts
            sources = self.accelerator.gather(padded_sources(batches, self.config.batch_size).to(device)[None])
            amounts[2] = pair_count(sources.transpose(0, 1).flatten(1)).sum()
        return amounts

    def probe(self) -> None:
        """Forward and backward pass of the longest batch, without a step: memory that is too small shows now, not after
        hours."""
        rows = self.dataset.longest(self.config.batch_size)
        batch = self.collator([self.dataset[index] for index in rows])
        longest, device = self.dataset.lengths[rows[0]], self.accelerator.device
        try:
            with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
                self.wrapped.train()
                self.accelerator.backward(self.loss(batch, self._amounts([batch])))
        except torch.OutOfMemoryError:
            raise ConfigError(
                f"the longest batch ({len(rows)} rows, up to {longest:,} tokens) does not fit into the memory of "
                f"{device}: give a smaller batch_size (with more gradient_accumulation), gradient_checkpointing: true, "
                "precision: bf16, method: lora, load_in_4bit: true, or more devices (FSDP)"
            ) from None
        self.optimizer.zero_grad()
        peak = f", {torch.cuda.max_memory_allocated(device) / 2**30:.1f} GiB" if device.type == "cuda" else ""
        self.say(f"memory probe: {len(rows)} rows of up to {longest:,} tokens pass{peak}")

    def any_device(self, value: int) -> int:
        """The largest of a number of all devices, so that all of them stop after the same step."""
        if self.accelerator.num_processes == 1:
            return value
        return int(self.accelerator.gather(torch.tensor([value], device=self.accelerator.device)).max())
