"""transformers' Trainer with this project's order of rows, losses, learning-rate groups and checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerCallback, TrainingArguments

from qsit_plugin.protocol import ScoreProfile
from qsit_plugin.tiling import Tiling

from .checkpoints import load_trained, mark_complete, save_trained
from .config import ConfigError, RunConfig
from .data.collator import Batch, Collator
from .data.dataset import QualityDataset
from .data.sampler import MixtureSampler
from .forward import forward
from .losses import level_shares, rank_losses, token_losses, total_loss
from .parameters import group_lines, parameter_groups
from .ranking import padded_sources, pair_count, rank_part


class QSiTTrainer(Trainer):
    """Trains on a QualityDataset in a MixtureSampler's order.

    The sampler deals its rows out to the ranks itself, so the loader is kept from accelerate, which would deal them out
    once more. The loss of a step is normalised over all its batches and devices, and soft+rank compares the ratings of
    one batch of all devices: two processes give what one gives with twice the batch.
    """

    optimizer: Any

    def __init__(
        self,
        model: Any,
        arguments: TrainingArguments,
        *,
        dataset: QualityDataset,
        sampler: MixtureSampler,
        collator: Collator,
        config: RunConfig,
        profile: ScoreProfile,
        tiling: Tiling,
        say: Callable[[str], None],
    ):
        arguments._n_gpu = min(arguments.n_gpu, 1)  # DataParallel would cut the tiles of a batch anywhere
        super().__init__(model=model, args=arguments, train_dataset=dataset, data_collator=collator)
        self.model_accepts_loss_kwargs = True  # the loss is normalised here, so Trainer must not divide it again
        self.loss_is_scaled_for_ga = True
        self.dataset, self.sampler, self.config, self.say = dataset, sampler, config, say
        self.level_ids, self.tiling = profile.level_token_ids, tiling
        self._probe_due = config.memory_probe
        self.add_callback(_Epochs(sampler, config.gradient_accumulation * config.batch_size))

    # ---- rows ----

    def get_train_dataloader(self) -> DataLoader:
        return DataLoader(
            self.dataset,
            batch_size=self.config.batch_size,
            sampler=self.sampler,
            collate_fn=self.data_collator,
            num_workers=self.config.workers,
            pin_memory=self.args.device.type == "cuda",
            persistent_workers=False,  # they would go on with the sampler of the epoch in which they started
            generator=torch.Generator().manual_seed(0),  # else every epoch draws from the generator of dropout
        )

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: torch.device) -> tuple[list, Any]:
        """The batches of one step, and what their losses are divided by, summed over all devices."""
        batches = list(islice(epoch_iterator, num_batches))
        return batches, self._amounts(batches, device)

    def _amounts(self, batches: Sequence[Batch], device: torch.device) -> torch.Tensor:
        """The ``amounts`` of batches, and of those of the other devices beside them."""
        amounts = sum((batch["amounts"].to(device) for batch in batches), torch.zeros(3, device=device))
        if self.args.world_size == 1:
            return amounts
        amounts = self.accelerator.gather(amounts[None]).sum(0)
        if self.config.level_loss == "soft+rank":  # pairs of two devices are in no device's own amounts
            sources = self.accelerator.gather(padded_sources(batches, self.config.batch_size).to(device)[None])
            amounts[2] = pair_count(sources.transpose(0, 1).flatten(1)).sum()
        return amounts

    def _run_epoch(self, *arguments: Any, **options: Any) -> None:
        if self.state.global_step >= self.state.max_steps:
            # a run that was stopped after its last step, before its result: Trainer would make one step more
            self.control.should_training_stop = True
            return
        super()._run_epoch(*arguments, **options)

    # ---- loss ----

    def compute_loss(
        self, model: Any, inputs: Batch, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        amounts = self._amounts([inputs], self.args.device) if num_items_in_batch is None else num_items_in_batch
        logits = forward(model, inputs, self.tiling)
        losses = token_losses(logits, inputs, self.level_ids, soft=self.config.level_loss != "hard")
        loss = total_loss(losses, inputs, amounts, self.config.normalize)
        if self.config.level_loss == "soft+rank" and amounts[2] > 0:
            loss = loss + self.config.rank_weight * self._rank_part(logits, inputs) / amounts[2]
        # DDP and FSDP average the gradients of the devices; these are parts of one sum
        loss = loss * self.args.world_size
        return (loss, {"logits": logits}) if return_outputs else loss

    def _rank_part(self, logits: torch.Tensor, inputs: Batch) -> torch.Tensor:
        if self.args.world_size == 1:
            return rank_losses(logits, inputs, self.level_ids).sum()
        return rank_part(
            level_shares(logits, inputs, self.level_ids),
            inputs,
            rows=self.config.batch_size,
            place=self.args.process_index,
            gather=self.accelerator.gather,
        )

    def training_step(self, model: Any, inputs: Batch, num_items_in_batch: Any = None) -> torch.Tensor:
        if self._probe_due:
            self._probe_due = False
            self.probe(model)
        return super().training_step(model, inputs, num_items_in_batch)

    def probe(self, model: Any) -> None:
        """The longest batch there and back, without a step: memory that will not do shows now, not after hours."""
        rows = self.dataset.longest(self.config.batch_size)
        batch = self._prepare_inputs(self.data_collator([self.dataset[index] for index in rows]))
        amounts = self._amounts([batch], self.args.device)
        longest = self.dataset.lengths[rows[0]]
        device = self.args.device
        try:
            with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
                model.train()
                with self.compute_loss_context_manager():
                    loss = self.compute_loss(model, batch, num_items_in_batch=amounts)
                self.accelerator.backward(loss)
        except torch.OutOfMemoryError:
            raise ConfigError(
                f"the longest batch ({len(rows)} rows, up to {longest:,} tokens) does not fit into the memory of "
                f"{device}: give a smaller batch_size (with more gradient_accumulation), gradient_checkpointing: true, "
                "precision: bf16, method: lora, or more devices (FSDP)"
            ) from None
        model.zero_grad()
        peak = f", {torch.cuda.max_memory_allocated(device) / 2**30:.1f} GiB" if device.type == "cuda" else ""
        self.say(f"memory probe: {len(rows)} rows of up to {longest:,} tokens pass{peak}")

    # ---- optimizer ----

    def create_optimizer(self, model: Any = None) -> Any:
        if self.optimizer is None:
            groups = parameter_groups(model or self.model, self.config.rates(), self.config.weight_decay)
            for line in group_lines(groups):
                self.say(line)
            self.optimizer = torch.optim.AdamW(groups)
        return self.optimizer

    # ---- checkpoints ----

    def _save(self, output_dir: str | None = None, state_dict: Mapping[str, torch.Tensor] | None = None) -> None:
        if self.args.should_save:
            save_trained(self.model, Path(output_dir or self.args.output_dir), state_dict)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        else:
            load_trained(self.model, Path(resume_from_checkpoint))

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        self.accelerator.wait_for_everyone()  # every rank writes its own random state
        if self.args.should_save:
            mark_complete(Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}")

    def floating_point_ops(self, inputs: Any) -> int:
        return 0  # Trainer's estimate takes every id for a token of the language model alone


class _Epochs(TrainerCallback):
    """Takes the sampler to the epoch that begins, also after a resume in the middle of one."""

    def __init__(self, sampler: MixtureSampler, rows_per_step: int):
        self.sampler, self.rows_per_step = sampler, rows_per_step

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        steps = -(-len(self.sampler) // self.rows_per_step)
        self.sampler.set_epoch(state.global_step // steps)
