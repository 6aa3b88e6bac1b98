"""A fine-tuning run from its configuration to its result. ``qsit train run`` and ``run`` do the same.

From top to bottom: configuration, data, model and trained parameters, loop, result.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .config import ConfigError, RunConfig
from .devices import connect, is_first, is_sharded
from .requirements import require_training, versions

if TYPE_CHECKING:
    from accelerate import Accelerator

    from qsit_plugin.checkpoint import Checkpoint

    from .data.dataset import QualityDataset
    from .data.mixture import Mixture
    from .loop import Loop
    from .run_log import RunLog
    from .signals import StopSignals
    from .validation.callback import Validation

log = logging.getLogger(__name__)
RECORD = "run.json"
Say = Callable[[str], None]


@dataclass
class Run:
    """A run that is ready to begin: everything has been checked but the memory.

    ``facts``: what must be the same for it to go on. ``model``: that of ``checkpoint``, under its adapter for lora.
    """

    config: RunConfig
    checkpoint: Checkpoint
    model: Any
    dataset: QualityDataset
    loop: Loop
    validation: Validation | None
    facts: dict[str, Any]
    say: Say


def run(
    config: RunConfig, *, resume: bool = False, say: Say = log.info, ratio: Mapping[str, Any] | None = None
) -> Path:
    """Fine-tune, and return the folder of the result: ``model`` or ``adapter`` below ``config.output``.

    ``resume``: go on from the newest checkpoint of ``config.output``; from the beginning where it has none yet.
    ``say``: takes the lines that people read; called by the first process only. ``ratio``: where the shares come from,
    kept in run.json.

    Raises ConfigError for everything that is wrong before the first step, WeightsError and ProfileError for a base
    checkpoint that cannot be opened, and Stopped, a KeyboardInterrupt, after Ctrl-C or SIGTERM, with the state saved.
    Sets the random generators of torch, NumPy and Python.
    """
    prepared = prepare(config, resume=resume, say=say)
    if ratio is not None:
        prepared.facts["ratio"] = dict(ratio)
    train(prepared, resume=resume)
    return finish(prepared)


def prepare(config: RunConfig, *, resume: bool = False, say: Say = log.info) -> Run:
    """Open, read and check everything that a run needs."""
    require_training(config.report_to)
    _check_output(config, resume)
    from qsit_plugin.checkpoint.adapter import import_peft

    import_peft()  # which transformers would import in a less quiet way
    accelerator = connect(config)
    say = say if accelerator.is_main_process else silent
    from .checkpoints import fingerprint
    from .data.collator import Collator
    from .data.inputs import dataset_of, rows_of, validation_of
    from .data.tokens import check_profile
    from .loop import Loop
    from .model import make_trainable, open_base
    from .ranking import check_pairs
    from .validation.callback import Validation
    from .validation.feedback import Balance

    checkpoint = open_base(config, bf16=accelerator.mixed_precision == "bf16")
    check_profile(checkpoint.profile, checkpoint.tokenizer)
    mixture = rows_of("data", config.data, config.seed)
    sampler = _sampler(config, mixture, accelerator)
    with accelerator.main_process_first():  # the others find in the cache what it has looked at
        dataset = dataset_of(config, checkpoint, mixture, say)
    balance = None if config.balance is None else Balance(config, mixture, sampler)
    held = None if config.validation is None else validation_of(config.validation, config, checkpoint)
    compared = None
    if config.level_loss == "soft+rank":
        compared = check_pairs(mixture, config, accelerator.num_processes)
    facts = {
        "devices": accelerator.num_processes,
        "base": fingerprint(checkpoint.model),
        "rows": {source.name: source.selection_sha256 for source in mixture.sources},
        "validation": None if held is None else {s.name: s.selection_sha256 for s in held.sources},
        "question": checkpoint.profile.question,
        "answer_prefix": checkpoint.profile.answer_prefix,
    }
    model = make_trainable(config, checkpoint)
    if config.adapter is not None:  # which is not asked for again by its weights, but trained on with its settings
        found = model.peft_config["default"]
        facts["adapter"] = {"rank": found.r, "alpha": found.lora_alpha, "dropout": found.lora_dropout}
    loop = Loop(
        config,
        accelerator,
        model,
        dataset=dataset,
        sampler=sampler,
        collator=Collator(checkpoint.model.config.image_token_id, checkpoint.tokenizer.eos_token_id, config),
        level_ids=checkpoint.profile.level_token_ids,
        say=say,
    )
    _describe(config, checkpoint, mixture, loop)
    if compared is not None:
        say(compared)
    validation = None
    if held is not None:
        _check_unsharded(accelerator)
        validation = Validation(loop, checkpoint, held.rows(), balance, say)
        _describe_validation(validation, dataset)
    return Run(config, checkpoint, model, dataset, loop, validation, facts, say)


def train(prepared: Run, *, resume: bool = False) -> None:
    """The training itself; writes run.json, logs and checkpoints into the output folder."""
    from . import checkpoints
    from .run_log import RunLog
    from .signals import StopSignals

    config, loop, validation = prepared.config, prepared.loop, prepared.validation
    output = Path(config.output)
    with ExitStack() as ending:
        if is_first():
            output.mkdir(parents=True, exist_ok=True)
            ending.enter_context(checkpoints.holding(output))
        found = checkpoints.newest(output / "checkpoints") if resume else None
        if found is not None:
            checkpoints.check_same(output / RECORD, config, prepared.facts)
            prepared.say(f"going on from {found}")
        elif is_first():
            _check_output(config, resume)  # another run may have begun there meanwhile
            packages = versions("torch", "transformers", "peft", "accelerate")
            checkpoints.write_record(output / RECORD, config, prepared.facts, packages)
        ending.callback(loop.end)
        loop.begin()
        planned = loop.total if found is None else checkpoints.load(loop, found)
        if planned != loop.total:
            prepared.say(f"{loop.total:,} steps in all, {planned:,} before: the learning rate follows the new schedule")
        report = RunLog(config, loop, prepared.say)
        ending.callback(report.close)  # trackers keep what they have not sent yet
        if validation is not None:
            validation.begin(report, planned)
        with StopSignals() as signals:
            _make_steps(prepared, report, signals)
        if validation is not None:
            validation.end()
        if skipped := prepared.dataset.skipped():
            prepared.say(f"skip_damaged: {len(skipped):,} damaged images were left out: {', '.join(skipped[:5])}")


def _make_steps(prepared: Run, report: RunLog, signals: StopSignals) -> None:
    """Make, measure, log and save the steps that are left. Raises Stopped after a signal, DamagedImage for an image."""
    from . import checkpoints
    from .data.dataset import DamagedImage
    from .signals import Stopped

    config, loop, validation = prepared.config, prepared.loop, prepared.validation
    folder = Path(config.output) / "checkpoints"
    try:
        for step in loop.steps() if not (validation and validation.exhausted()) else ():
            if validation is not None:
                validation.after(step.number)
            report.step(step)
            stopped, early = loop.any_device(signals.number), validation is not None and validation.exhausted()
            if stopped or early or step.number % config.save_every == 0 or step.number == loop.total:
                checkpoints.save(loop, folder)
            if stopped:
                raise Stopped(stopped)
            if early:
                prepared.say(f"stopped at step {step.number}: no better validation in the last {config.early_stopping}")
                return
    except DamagedImage:
        if loop.done and loop.accelerator.num_processes == 1:  # of several the others wait for this one within a step
            checkpoints.save(loop, folder)
        raise
    if stopped := loop.any_device(signals.number):  # while the last step was saved
        raise Stopped(stopped)


def finish(prepared: Run) -> Path:
    """Write the result. Raises RuntimeError where ``train`` was not called."""
    if not prepared.loop.done:
        raise RuntimeError("nothing is trained yet: call train first")
    from .checkpoints import writing
    from .export import export
    from .plots import draw_curves

    config, accelerator = prepared.config, prepared.loop.accelerator
    folder = Path(config.output) / ("model" if config.merged else "adapter")
    gathered = accelerator.get_state_dict(prepared.loop.wrapped) if is_sharded(accelerator) else None
    if accelerator.is_main_process:
        with writing(folder):
            export(prepared.model, prepared.checkpoint, config, folder, gathered)
        if (picture := draw_curves(Path(config.output))) is not None:
            prepared.say(f"written: {picture}")
        prepared.say(f"written: {folder}")
    accelerator.wait_for_everyone()
    return folder


def silent(message: str) -> None:
    """Say nothing: the other processes of a run, and the runs of a search."""


def _check_output(config: RunConfig, resume: bool) -> None:
    output = Path(config.output)
    if not resume and (output / RECORD).exists() and is_first():
        raise ConfigError(f"{output} holds a run already: go on with --resume, or give another output")
    there = next(path for path in (output, *output.absolute().parents) if path.exists())
    if not there.is_dir():
        raise ConfigError(f"output is {output}, but {there} is a file: give a folder")
    if not os.access(there, os.W_OK):
        raise ConfigError(f"output is {output}, but nothing can be written into {there}: give another folder")


def _check_unsharded(accelerator: Accelerator) -> None:
    if is_sharded(accelerator):
        raise ConfigError(
            "validation needs the whole model on one device, which FSDP does not leave there: take it out (and "
            "balance), and measure the result with qsit train evaluate"
        )


def _sampler(config: RunConfig, mixture: Mixture, accelerator: Accelerator) -> Any:
    try:
        return mixture.sampler(
            count=config.rows_per_epoch,
            shares=config.shares,
            rank=accelerator.process_index,
            world_size=accelerator.num_processes,
        )
    except ValueError as error:
        raise ConfigError(f"shares: {error}") from None


def _describe(config: RunConfig, checkpoint: Checkpoint, mixture: Mixture, loop: Loop) -> None:
    """What the run is about to do: the plan of the mixture, a text of each task, warnings of its labels, the device."""
    from .data.checks import contradiction_text, off_range_texts
    from .data.dataset import soft_label_gap, supervised_texts
    from .data.mixture import plan_lines, plan_of

    accelerator, dataset, say = loop.accelerator, loop.dataset, loop.say
    devices = accelerator.num_processes
    for line in plan_lines(plan_of(mixture, count=config.rows_per_epoch, shares=config.shares, world_size=devices)):
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
    precision = "bfloat16" if accelerator.mixed_precision == "bf16" else "float32"
    say(f"{config.method} of {checkpoint.name} on {devices} x {accelerator.device.type}, in {precision}")


def _describe_validation(validation: Validation, dataset: QualityDataset) -> None:
    images, seen = ({name for row in rows for name in row.images} for rows in (validation.rows, dataset.rows))
    validation.say(
        f"validation: {len(validation.rows):,} rows of {len(images):,} images, {len(validation.some):,} rows during "
        "training"
    )
    if common := images & seen:
        validation.say(
            f"{len(common):,} of the {len(images):,} validation images are trained on: figures on them say little"
        )
