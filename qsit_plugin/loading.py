"""``load``: from a name, a folder or a Hub id to an opened model."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from qsit_plugin.weights import resolve
from qsit_plugin.weights.folder import weight_bytes

from .checkpoint.golden_check import check_goldens, is_unverified
from .checkpoint.opening import open_checkpoint
from .checkpoint.quantization import require_bitsandbytes
from .engines.ambient import ordinary_tensors
from .engines.devices import resolve_device, resolve_dtype
from .images.errors import MAX_PIXELS, pixel_limit
from .model import QSiT


@ordinary_tensors()
def load(
    name: str | os.PathLike = "qsit-nano",
    *,
    device: str | torch.device = "auto",
    dtype: str | torch.dtype = "auto",
    revision: str | None = None,
    adapter: str | os.PathLike | None = None,
    profile: Any = None,
    exif_rotation: bool = False,
    quantization: str | None = None,
    max_tiles: int | None = None,
    max_image_tokens: int | None = None,
    max_pixels: int | None = MAX_PIXELS,
    check_golden: bool = True,
) -> QSiT:
    """Open a checkpoint.

    Args:
        name: ``"qsit-nano"`` (embedded, offline), ``"qsit-mini"``, ``"qsit"``, a folder, or a Hub id ``owner/name``.
        device: ``"auto"`` takes CUDA, then MPS, then the CPU.
        dtype: ``"auto"`` takes float16 on CUDA and MPS, as published; on the CPU float32 below 1 GB of weights, else
            bfloat16 where the processor has it. An explicit dtype is never changed.
        revision: branch, tag or commit of a Hub repository.
        adapter: folder of a peft adapter to merge (needs the ``peft`` package).
        profile: a ScoreProfile, ``"official"``, ``"training"``, or the path of a ``qsit.json``; None takes the
            checkpoint's own.
        exif_rotation: rotate photos by their EXIF orientation before they are encoded. The released procedure does
            not, so scores then say so in ``mode``.
        quantization: ``"8bit"`` or ``"4bit"`` weights in the language model (needs the ``bitsandbytes`` package): a
            half or a quarter of the memory, slower, other scores, which say so in ``mode``.
        max_tiles: use at most this many tiles beside the base view, on the smaller ones of the checkpoint's grids; at
            least 1. Faster, other scores, which say so in ``mode`` and have no calibrated scales.
        max_image_tokens: the same with a limit on an image's tokens, of all its grids that keep it the one that shows
            most of the image. Both may be given.
        max_pixels: refuse images with more pixels (width x height), before they are decoded; 2**28 (268 million) guards
            against files that unpack to more memory than there is. None for no limit. Moves no score.
        check_golden: score the images of the folder's ``golden.json``, if it has one, and refuse a checkpoint that does
            not give its golden scores. Done once for each state of the files (the result is cached in ``QSIT_CACHE``),
            never for the embedded model. With an adapter, a profile, a limit, EXIF rotation or quantized weights,
            under which golden scores do not hold, the checkpoint is opened without them first. False leaves it out.

    Raises:
        WeightsError: the checkpoint cannot be found, or fails one of the load-time checks. Whatever goes wrong between
            opening its folder and its first score is this error, and names the file and the cure.
        ProfileError: a WeightsError and a ValueError; the profile is malformed or does not fit the tokenizer.
        ValueError: a device that is not here, a dtype or a quantization that is not known, or a ``max_pixels`` that is
            no whole number from 1 on.
        ModuleNotFoundError: ``quantization`` needs bitsandbytes, which is not installed.
        LimitError: a ValueError; a limit that the checkpoint's grids cannot keep. It says which they can.
    """
    pixel_limit(max_pixels)  # before the weights are read
    if quantization is not None:
        require_bitsandbytes(quantization)
    folder = resolve(name, revision=revision)
    changed = adapter is not None or profile is not None or quantization is not None or exif_rotation
    changed = changed or max_tiles is not None or max_image_tokens is not None
    if check_golden and changed and is_unverified(folder):
        load(folder, device=device, dtype=dtype)  # as it is, only to be checked; once, where the cache can be written
    target = resolve_device(device)
    checkpoint = open_checkpoint(
        folder,
        name=str(name) if not os.path.isdir(name) else Path(name).resolve().name,
        device=target,
        dtype=resolve_dtype(dtype, target, weight_bytes(folder)),
        adapter=adapter,
        profile=profile,
        quantization=quantization,
        max_tiles=max_tiles,
        max_image_tokens=max_image_tokens,
    )
    model = QSiT(
        checkpoint,
        adapter=adapter,
        automatic_dtype=dtype == "auto",
        exif_rotation=exif_rotation,
        max_pixels=max_pixels,
    )
    if check_golden and not changed:
        check_goldens(model)
    return model
