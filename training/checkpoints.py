"""The resume state of a run on disk, from which it goes on bit for bit, and the record of what it was begun with.

A checkpoint holds what is trained by its own names (``trained.safetensors``), the optimizer, the random states of every
process, and the number of steps; the place in the mixture follows from that. transformers' Trainer saves this
architecture under the published names and reads nothing back, without an error (seen with transformers 5.23).
"""

from __future__ import annotations

import errno
import hashlib
import json
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

from qsit_plugin.row_file import write_whole

from .config import ConfigError, RunConfig
from .devices import is_sharded

if TYPE_CHECKING:  # what is saved is also looked for by a command that was stopped while it imported torch
    import torch

    from .loop import Loop

WEIGHTS, OPTIMIZER, STATE, COMPLETE = "trained.safetensors", "optimizer.pt", "trainer_state.json", "complete.json"
"""``COMPLETE`` is written last: without it, the run was killed while the checkpoint was written."""
LOCK = ".lock"
FREE = {
    *("epochs", "max_steps", "early_stopping", "save_every", "keep_checkpoints", "log_every", "tensorboard"),
    *("report_to", "workers", "memory_probe", "max_tokens", "result", "result_dtype", "scope", "output", "images"),
    *("scope_kind", "base", "adapter", "data", "profile", "validation", "verify_images", "skip_damaged"),
}
"""Settings that may differ when a run goes on. Folders may have been moved, so what they hold is compared instead: the
rows by their hashes, the base by its fingerprint. With more epochs or steps the rest follows the longer schedule."""


@contextmanager
def holding(output: Path) -> Iterator[None]:
    """Keep other runs from writing into a folder. Raises ConfigError where one does.

    By a record lock, which the workers of a DataLoader do not inherit: they outlive a killed run by seconds, in which
    it can go on already. Where the file system has no locks, nothing is kept out.
    """
    with (output / LOCK).open("a+") as file:
        try:
            if sys.platform == "win32":
                import msvcrt

                msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
            else:
                import fcntl

                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN, errno.EDEADLK):
                raise ConfigError(
                    f"another run is writing into {output}: wait for its end, or give another output"
                ) from None
        yield


@contextmanager
def writing(target: Path) -> Iterator[None]:
    """Raises OSError that names the target where a library cannot write to it, above all on a full disk."""
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, SafetensorError, RuntimeError) as error:
        cause = error.__context__ if isinstance(error, RuntimeError) else error  # torch's error comes of the file's
        if not isinstance(cause, OSError | SafetensorError) or getattr(cause, "filename", None):
            raise
        raise OSError(f"cannot write {target} ({cause}): free some space, and go on with --resume") from error


def save(loop: Loop, folder: Path) -> Path:
    """Write ``checkpoint-STEP`` below a folder, from all processes, and keep the newest ``keep_checkpoints`` of it.

    Raises OSError where it cannot be written, as on a full disk."""
    target = folder / f"checkpoint-{loop.done}"
    with writing(target):
        _save(loop, target)
    if loop.accelerator.is_main_process:
        kept = _checkpoints(folder)[-loop.config.keep_checkpoints :]
        for old in folder.iterdir():  # with what a run that was killed has left
            if old not in kept and _step_of(old) is not None:
                shutil.rmtree(old)
    return target


def _save(loop: Loop, target: Path) -> None:
    import torch
    from accelerate.utils import save_fsdp_model, save_fsdp_optimizer

    accelerator = loop.accelerator
    if accelerator.is_main_process:
        shutil.rmtree(target, ignore_errors=True)  # of a run that was killed here
        target.mkdir(parents=True)
    accelerator.wait_for_everyone()
    if is_sharded(accelerator):
        plugin = accelerator.state.fsdp_plugin
        save_fsdp_model(plugin, accelerator, loop.wrapped, str(target))
        save_fsdp_optimizer(plugin, accelerator, loop.optimizer, loop.wrapped, str(target))
    elif accelerator.is_main_process:
        save_trained(loop.model, target)
        with (target / OPTIMIZER).open("wb") as file:  # by its path torch would not say that the disk is full
            torch.save(loop.optimizer.state_dict(), file)
    with (target / _random_file(loop)).open("wb") as file:
        torch.save(_random_states(), file)
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        state = {"global_step": loop.done, "max_steps": loop.total}
        (target / STATE).write_text(json.dumps(state, indent=2) + "\n", encoding="utf-8")
        (target / COMPLETE).write_text("{}\n", encoding="utf-8")


def load(loop: Loop, checkpoint: Path) -> int:
    """Put a loop that has begun back to where it was saved; returns the steps that the run then had in all.

    Raises ConfigError for a checkpoint with a damaged file, of other weights, or of a later step than the run's last.
    """
    import torch
    from accelerate.utils import load_fsdp_model, load_fsdp_optimizer
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    sharded, weights, optimizer = is_sharded(loop.accelerator), {}, {}
    try:
        state = json.loads((checkpoint / STATE).read_text(encoding="utf-8"))
        step, total = int(state["global_step"]), int(state["max_steps"])
        random = torch.load(checkpoint / _random_file(loop), weights_only=False)  # written by this program
        if not sharded:
            weights = load_file(checkpoint / WEIGHTS)
            optimizer = torch.load(checkpoint / OPTIMIZER, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, UnpicklingError, SafetensorError) as error:
        raise ConfigError(
            f"{checkpoint} is damaged ({error}): delete it, and --resume goes on from the one before"
        ) from error
    if step > loop.total:
        raise ConfigError(
            f"the run in {checkpoint.parents[1]} has made {step:,} steps already, and the settings give {loop.total:,} "
            "in all: give as many max_steps or epochs, or another output"
        )
    if sharded:
        plugin = loop.accelerator.state.fsdp_plugin
        load_fsdp_model(plugin, loop.accelerator, loop.wrapped, str(checkpoint))
        load_fsdp_optimizer(plugin, loop.accelerator, loop.optimizer, loop.wrapped, str(checkpoint))
    else:
        load_trained(loop.model, weights, checkpoint)
        loop.optimizer.load_state_dict(optimizer)
    _set_random_states(random)
    loop.done = step
    return total


def newest(folder: Path) -> Path | None:
    """The newest complete checkpoint of a run; None where there is none."""
    return next(reversed(_checkpoints(folder)), None)


def _checkpoints(folder: Path) -> list[Path]:
    """The complete ones, oldest first."""
    steps = {path.parent: _step_of(path.parent) for path in folder.glob(f"*/{COMPLETE}")}
    return sorted((path for path, step in steps.items() if step is not None), key=lambda path: steps[path] or 0)


def _step_of(path: Path) -> int | None:
    """That of a checkpoint by its name, None for anything else, such as a copy that someone has made."""
    number = path.name.removeprefix("checkpoint-")
    return int(number) if number.isdecimal() and path.name != number else None


def _random_file(loop: Loop) -> str:
    several = loop.accelerator.num_processes > 1
    return f"rng_state_{loop.accelerator.process_index}.pth" if several else "rng_state.pth"


def _random_states() -> dict[str, Any]:
    import random

    import numpy as np
    import torch

    states = {"python": random.getstate(), "numpy": np.random.get_state(), "cpu": torch.get_rng_state()}
    return states | ({"cuda": torch.cuda.get_rng_state()} if torch.cuda.is_available() else {})


def _set_random_states(states: Mapping[str, Any]) -> None:
    import random

    import numpy as np
    import torch

    random.setstate(states["python"])
    np.random.set_state(states["numpy"])
    torch.set_rng_state(states["cpu"])
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])


def save_trained(model: torch.nn.Module, folder: Path) -> None:
    """Write the trainable weights."""
    from safetensors.torch import save_file

    state = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    save_file(
        {name: weight.detach().to("cpu").contiguous().clone() for name, weight in state.items()}, folder / WEIGHTS
    )


def load_trained(model: torch.nn.Module, saved: Mapping[str, torch.Tensor], folder: Path) -> None:
    """Put the trainable weights back. Raises ConfigError unless they are exactly those that were saved in a folder."""
    import torch

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


# ---- the record of a run ----


def fingerprint(model: torch.nn.Module) -> str:
    """A hash of the names, shapes and first values of all weights: enough to tell one checkpoint from another."""
    digest = hashlib.sha256()
    for name, weight in model.named_parameters():
        values = weight.detach().flatten()[:64].float().tolist()
        digest.update(f"{name} {tuple(weight.shape)} {values}".encode())
    return digest.hexdigest()


def check_same(record: Path, config: RunConfig, facts: Mapping[str, Any]) -> None:
    """Raise ConfigError where a run that goes on would not be the one that was begun.

    ``record``: the run.json that ``write_record`` wrote. ``facts``: rows' hashes, number of devices and so on.
    """
    try:
        begun = json.loads(record.read_text(encoding="utf-8"))
        # what an older version had no setting for was at its default
        was, had = {field.name: field.default for field in fields(config)} | begun["config"], dict(begun["facts"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{record} of the run to go on with is not readable ({error}): start a new output") from None
    now = config.to_dict()
    changed = [
        f"{name} was {was[name]!r}, is {now[name]!r}" for name in now if name not in FREE and was[name] != now[name]
    ]
    changed += [f"{name} was {had.get(name)!r}, is {facts[name]!r}" for name in facts if had.get(name) != facts[name]]
    if changed:
        rows = any(name.startswith("rows was") for name in changed)
        cure = " (for a damaged image take no row out, but give skip_damaged: true)" if rows else ""
        raise ConfigError(
            f"the run in {record.parent} was begun otherwise: {'; '.join(changed)}. Give what it had{cure}, or another "
            "output"
        )


def write_record(record: Path, config: RunConfig, facts: Mapping[str, Any], versions: Mapping[str, str]) -> None:
    content = {"config": config.to_dict(), "facts": dict(facts), "versions": dict(versions)}
    write_whole(record, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
