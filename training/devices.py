"""The devices of a run, by accelerate: one process a device, alone or under ``torchrun`` or ``accelerate launch``."""

from __future__ import annotations

import atexit
import os
import sys
from typing import TYPE_CHECKING, Any

from .config import ConfigError, RunConfig

if TYPE_CHECKING:
    from accelerate import Accelerator


def is_first() -> bool:
    """Whether this process is the first of its run, the one that writes and prints."""
    return int(os.environ.get("RANK", 0)) == 0


def is_sharded(accelerator: Accelerator) -> bool:
    """Whether no device has the whole model (FSDP)."""
    return bool(accelerator.distributed_type == "FSDP")


def connect(config: RunConfig) -> Accelerator:
    """The run's device, precision and, where there are several processes, their group.

    Raises ConfigError for DeepSpeed, and for FSDP on a CPU, where accelerate would silently take DDP instead.
    """
    import torch
    from accelerate import Accelerator, DistributedDataParallelKwargs
    from accelerate.state import AcceleratorState

    cpu = config.device == "cpu" or not torch.cuda.is_available()
    if _asked_for("DEEPSPEED"):
        raise ConfigError("DeepSpeed is not supported: shard the model with FSDP (fsdp.yaml of qsit train configs)")
    if _asked_for("FSDP") and cpu:
        raise ConfigError("FSDP needs GPUs, and this run is on the CPU: use torchrun or ddp.yaml there (DDP)")
    bf16 = config.precision == "bf16" or (config.precision == "auto" and not cpu)
    AcceleratorState._reset_state(reset_partial_state=True)  # an earlier run of this process had settings of its own
    accelerator = Accelerator(
        cpu=cpu,
        mixed_precision="bf16" if bf16 else "no",
        # a weight that gets no gradient is frozen, see parameters.is_read
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=False)],
    )
    accelerator.gradient_accumulation_steps = 1  # of ours; accelerate's own, by a variable, would divide the loss again
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        atexit.register(_disconnect)
    return accelerator


def _asked_for(backend: str) -> bool:
    """By ``accelerate launch``, which sets these variables."""
    return os.environ.get(f"ACCELERATE_USE_{backend}", "false").lower() in ("1", "true", "yes")


def unwrap(wrapped: Any) -> None:
    """Take the process group out of a DDP model, which a traceback or a script may hold to the very end."""
    from torch.nn.parallel import DistributedDataParallel

    if isinstance(wrapped, DistributedDataParallel):
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
