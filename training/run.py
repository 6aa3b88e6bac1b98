"""A fine-tuning run from its config to its result. ``qsit train run`` and ``run`` do the same.

One process a device: alone, or under ``torchrun`` or ``accelerate launch``, which set the number of processes.
"""

from __future__ import annotations

import atexit
import logging
import math
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .config import ConfigError, RunConfig
from .requirements import require_training, versions

if TYPE_CHECKING:
    from qsit_plugin.checkpoint import Checkpoint

    from .data.dataset import QualityDataset
    from .data.mixture import Mixture
    from .feedback import Balance
    from .trainer import QSiTTrainer

log = logging.getLogger(__name__)
RECORD = "run.json"


@dataclass
class Run:
    """A run that is ready to begin: everything has been checked but the memory."""

    config: RunConfig
    trainer: QSiTTrainer
    checkpoint: Checkpoint
    model: Any
    facts: dict[str, Any]


def run(
    config: RunConfig,
    *,
    resume: bool = False,
    say: Callable[[str], None] = log.info,
    ratio: Mapping[str, Any] | None = None,
) -> Path:
    """Fine-tune, and return the folder of the result: ``model`` or ``adapter`` below ``config.output``.

    ``resume``: go on from the newest checkpoint of ``config.output``; from the beginning where it has none yet.
    ``say``: takes the lines that people read; called by the first process only. ``ratio``: where the shares come from,
    kept in run.json.

    Raises ConfigError for everything that is wrong before the first step, WeightsError and ProfileError for a base
    checkpoint that cannot be opened. Sets the random generators of torch, NumPy and Python.
    """
    prepared = prepare(config, resume=resume, say=say)
    if ratio is not None:
        prepared.facts["ratio"] = dict(ratio)
    return finish(prepared, train(prepared, resume=resume))


def prepare(config: RunConfig, *, resume: bool = False, say: Callable[[str], None] = log.info) -> Run:
    """Open, read and check everything that a run needs; the first half of ``run``."""
    require_training(config.tensorboard)
    _check_output(config, resume)
    arguments = _arguments(config)
    tell = say if arguments.process_index == 0 else silent
    from .checkpoints import fingerprint
    from .data.collator import Collator
    from .data.inputs import dataset_of, rows_of, validation_of
    from .data.tokens import check_profile
    from .feedback import Balance
    from .model import make_trainable, open_base
    from .ranking import check_pairs
    from .trainer import QSiTTrainer

    checkpoint = open_base(config, bf16=arguments.bf16)
    check_profile(checkpoint.profile, checkpoint.tokenizer)
    mixture = rows_of("data", config.data, config.seed)
    try:
        sampler = mixture.sampler(
            count=config.rows_per_epoch,
            shares=config.shares,
            rank=arguments.process_index,
            world_size=arguments.world_size,
        )
    except ValueError as error:
        raise ConfigError(f"shares: {error}") from None
    dataset = dataset_of(config, checkpoint, mixture)
    balance = None if config.balance is None else Balance(config, mixture, sampler)
    validation = None if config.validation is None else validation_of(config.validation, config, checkpoint)
    compared = None if config.level_loss != "soft+rank" else check_pairs(mixture, config, arguments.world_size)
    base = fingerprint(checkpoint.model)
    model = make_trainable(config, checkpoint)
    _tell_begin(config, checkpoint, mixture, dataset, arguments, tell)
    if compared is not None:
        tell(compared)
    trainer = QSiTTrainer(
        model,
        _with_warmup(arguments, config, len(sampler)),
        dataset=dataset,
        sampler=sampler,
        collator=Collator(checkpoint.model.config.image_token_id, checkpoint.tokenizer.eos_token_id, config),
        config=config,
        profile=checkpoint.profile,
        tiling=checkpoint.tiling,
        say=tell,
    )
    _set_callbacks(trainer, config, tell)
    if validation is not None:
        _add_validation(trainer, checkpoint, validation, balance, tell)
    facts = {
        "devices": arguments.world_size,
        "base": base,
        "rows": {source.name: source.selection_sha256 for source in mixture.sources},
        "validation": None if validation is None else {s.name: s.selection_sha256 for s in validation.sources},
        "question": checkpoint.profile.question,
        "answer_prefix": checkpoint.profile.answer_prefix,
    }
    return Run(config, trainer, checkpoint, model, facts)


def train(prepared: Run, *, resume: bool = False) -> QSiTTrainer:
    """The training itself; writes run.json and checkpoints into the output folder."""
    from .checkpoints import check_same, newest, write_record

    output, trainer = Path(prepared.config.output), prepared.trainer
    found = newest(Path(trainer.args.output_dir)) if resume else None
    if found is not None:
        check_same(output / RECORD, prepared.config, prepared.facts)
        trainer.say(f"going on from {found}")
    elif trainer.args.process_index == 0:
        _check_output(prepared.config, resume)  # another run may have begun there meanwhile
        output.mkdir(parents=True, exist_ok=True)
        packages = versions("torch", "transformers", "peft", "accelerate")
        write_record(output / RECORD, prepared.config, prepared.facts, packages)
    if prepared.config.tensorboard and trainer.args.process_index == 0:
        _log_to_tensorboard(trainer, output)
    try:
        trainer.train(resume_from_checkpoint=None if found is None else str(found))
    finally:
        _unwrap(trainer)
    return trainer


def finish(prepared: Run, trainer: QSiTTrainer) -> Path:
    """Write the result."""
    from .export import export

    config = prepared.config
    folder = Path(config.output) / ("model" if config.merged else "adapter")
    gathered = trainer.accelerator.get_state_dict(trainer.model) if trainer.is_fsdp_enabled else None
    if trainer.args.process_index == 0:
        export(trainer.accelerator.unwrap_model(trainer.model), prepared.checkpoint, config, folder, gathered)
        trainer.say(f"written: {folder}")
    trainer.accelerator.wait_for_everyone()
    return folder


def is_first() -> bool:
    """Whether this process is the first of its run, the one that writes and speaks."""
    return int(os.environ.get("RANK", 0)) == 0


def _check_output(config: RunConfig, resume: bool) -> None:
    output = Path(config.output)
    if not resume and (output / RECORD).exists() and is_first():
        raise ConfigError(f"{output} holds a run already: go on with --resume, or give another output")
    there = next(path for path in (output, *output.absolute().parents) if path.exists())
    if not there.is_dir():
        raise ConfigError(f"output is {output}, but {there} is a file: give a folder")
    if not os.access(there, os.W_OK):
        raise ConfigError(f"output is {output}, but nothing can be written into {there}: give another folder")


def _arguments(config: RunConfig) -> Any:
    """The settings of Trainer. Making them also connects the processes of a distributed run."""
    import torch

    from qsit_plugin.checkpoint.adapter import import_peft

    import_peft()  # which transformers would import in a less quiet way
    from transformers import TrainingArguments

    output, cuda = Path(config.output), torch.cuda.is_available() and config.device != "cpu"
    arguments = TrainingArguments(
        output_dir=str(output / "checkpoints"),
        per_device_train_batch_size=config.batch_size,
        gradient_accumulation_steps=config.gradient_accumulation,
        num_train_epochs=config.epochs,
        max_steps=config.max_steps or -1,
        learning_rate=config.rates()["language"],
        lr_scheduler_type=config.schedule,
        max_grad_norm=config.max_grad_norm,
        bf16=config.precision == "bf16" or (config.precision == "auto" and cuda),
        use_cpu=config.device == "cpu",
        seed=config.seed,
        logging_steps=config.log_every,
        logging_nan_inf_filter=False,  # a loss that is not a number is shown as it is
        save_steps=config.save_every,
        save_total_limit=config.keep_checkpoints,
        report_to=[],
        log_level="error",
        disable_tqdm=True,
        remove_unused_columns=False,
        ddp_find_unused_parameters=False,  # what gets no gradient is frozen, see groups.is_read
        dataloader_num_workers=config.workers,
    )
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        atexit.register(_disconnect)
    return arguments


def _unwrap(trainer: QSiTTrainer) -> None:
    """Take the model out of DDP, and the group out of DDP, which a traceback or a script may hold to the very end."""
    from torch.nn.parallel import DistributedDataParallel

    wrapped = trainer.model_wrapped
    if isinstance(wrapped, DistributedDataParallel):
        trainer.model_wrapped = trainer.model
        for name in ("logger", "reducer", "process_group"):  # the logger holds the reducer, and that the group
            vars(wrapped).pop(name, None)


def _disconnect() -> None:
    """Leave the other processes of a distributed run, at the end of this one: another run in it needs the group.

    Gloo's threads are joined when nothing holds the group any longer, not by destroy_process_group itself. A thread
    that is left needs the GIL to free the tensors of its last collective, and where the interpreter is ending by then
    the process is aborted ("terminate called without an active exception"), so that torchrun calls the run failed.
    """
    import torch.distributed

    for name in ("last_exc", "last_value", "last_traceback"):  # the frames of a failed collective hold the group, too
        vars(sys).pop(name, None)
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _with_warmup(arguments: Any, config: RunConfig, rows: int) -> Any:
    per_epoch = math.ceil(math.ceil(rows / config.batch_size) / config.gradient_accumulation)
    arguments.warmup_steps = math.ceil(config.warmup * (config.max_steps or per_epoch * config.epochs))
    return arguments


def _add_validation(
    trainer: QSiTTrainer, checkpoint: Checkpoint, found: Mixture, balance: Balance | None, say: Callable[[str], None]
) -> None:
    from .validation_callback import Validation

    if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
        raise ConfigError(
            "validation needs the whole model on one device, which FSDP and DeepSpeed do not leave there: take it out "
            "(and balance), and measure the result with qsit train evaluate"
        )
    rows = found.rows()
    callback = Validation(trainer, checkpoint, rows, trainer.config, balance, say)
    trainer.add_callback(callback)
    images, seen = {row.image for row in rows}, {row.image for row in trainer.dataset.rows}
    say(f"validation: {len(rows):,} rows of {len(images):,} images, {len(callback.some):,} rows on the way")
    if common := images & seen:
        say(f"{len(common):,} of the {len(images):,} validation images are trained on: figures on them say little")


def _tell_begin(
    config: RunConfig,
    checkpoint: Checkpoint,
    mixture: Mixture,
    dataset: QualityDataset,
    arguments: Any,
    say: Callable[[str], None],
) -> None:
    from .data.contradiction import contradiction_text
    from .data.dataset import soft_label_gap, supervised_texts
    from .data.label_error import off_range_texts
    from .data.plan import plan_lines, plan_of

    for line in plan_lines(
        plan_of(mixture, count=config.rows_per_epoch, shares=config.shares, world_size=arguments.world_size)
    ):
        say(line)
    for text in supervised_texts(dataset, checkpoint.tokenizer):
        say(text)
    if config.level_loss != "hard":
        without, ratings = soft_label_gap(dataset.rows)
        if without:
            say(f"{without:,} of {ratings:,} ratings have no level_probs: these are trained on their word")
        odd = contradiction_text(dataset.rows, checkpoint.profile)
        for text in [*off_range_texts(dataset.rows), *([odd] if odd else [])]:
            say(f"warning: {text}")
    devices = f"{arguments.world_size} x {arguments.device.type}"
    say(f"{config.method} of {checkpoint.name} on {devices}, in {'bfloat16' if arguments.bf16 else 'float32'}")


def _set_callbacks(trainer: QSiTTrainer, config: RunConfig, say: Callable[[str], None]) -> None:
    from transformers.trainer_callback import PrinterCallback

    from .progress import Progress

    trainer.remove_callback(PrinterCallback)
    rows = config.batch_size * config.gradient_accumulation * trainer.args.world_size
    trainer.add_callback(Progress(say, rows))


def _log_to_tensorboard(trainer: QSiTTrainer, output: Path) -> None:
    """Into the run's own folder: the callback alone takes it from the environment, for all runs of a process."""
    from torch.utils.tensorboard import SummaryWriter
    from transformers.integrations import TensorBoardCallback

    folder = os.environ.get("TENSORBOARD_LOGGING_DIR", str(output / "tensorboard"))
    trainer.add_callback(TensorBoardCallback(SummaryWriter(folder)))


def silent(message: str) -> None:
    """Say nothing: the other processes of a run, and the runs of a search."""
