"""``load``: from a name, a folder or a Hub id to an opened model."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qsit_plugin.weights import resolve
from qsit_plugin.weights.folder import weight_bytes

from .checkpoint.golden_check import check_goldens, is_unverified
from .checkpoint.onnx_opening import open_onnx_checkpoint
from .engines.choice import check_engine, choose_engine
from .engines.installed import require_engine
from .images.errors import MAX_PIXELS, pixel_limit
from .model import QSiT
from .paused_collector import paused_collector

if TYPE_CHECKING:
    import torch

    from .checkpoint import Checkpoint


def load(
    name: str | os.PathLike = "qsit-nano",
    *,
    engine: str = "auto",
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
        engine: ``"torch"``; ``"onnx"``, which runs graphs made by ``qsit weights export`` in ONNX Runtime, on the CPU
            in float32, without importing torch; or ``"auto"``, which takes ONNX Runtime where such graphs lie beside
            their weights and nothing else was asked for than it can do, and torch otherwise. An engine that was named
            is never replaced. Scores are the same within 1e-5.
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
        ValueError: an engine, a dtype or a quantization that is not known, a device that is not here, something that
            the named engine cannot do, or a ``max_pixels`` that is no whole number from 1 on.
        ModuleNotFoundError: no engine is installed, or not the one that is needed, or not bitsandbytes, which
            ``quantization`` needs. With the command that installs it.
        LimitError: a ValueError; a limit that the checkpoint's grids cannot keep. It says which they can.
    """
    pixel_limit(max_pixels)  # before the weights are read
    if quantization is not None:
        from .checkpoint.quantization import require_bitsandbytes

        require_bitsandbytes(quantization)
    asked = {"device": device, "dtype": dtype, "adapter": adapter, "quantization": quantization}
    check_engine(engine, **asked)
    require_engine(engine)  # before a checkpoint is downloaded
    folder = resolve(name, revision=revision)
    chosen = choose_engine(engine, folder, **asked)
    changed = adapter is not None or profile is not None or quantization is not None or exif_rotation
    changed = changed or max_tiles is not None or max_image_tokens is not None
    if check_golden and changed and is_unverified(folder):
        # as it is, only to be checked; once, where the cache can be written
        load(folder, engine=chosen, device=device, dtype=dtype)
    about = {
        "name": str(name) if not os.path.isdir(name) else Path(name).resolve().name,
        "profile": profile,
        "max_tiles": max_tiles,
        "max_image_tokens": max_image_tokens,
    }
    model = QSiT(
        open_onnx_checkpoint(folder, **about) if chosen == "onnx" else _open_in_torch(folder, **asked, **about),
        adapter=adapter,
        automatic_dtype=dtype == "auto",
        exif_rotation=exif_rotation,
        max_pixels=max_pixels,
    )
    if check_golden and not changed:
        check_goldens(model)
    return model


def _open_in_torch(folder: Path, *, device: Any, dtype: Any, **about: Any) -> Checkpoint:
    with paused_collector():
        from .checkpoint.opening import open_checkpoint
        from .engines import torch_engine  # noqa: F401 (with what it imports)
        from .engines.ambient import ordinary_tensors
        from .engines.devices import resolve_device, resolve_dtype

    target = resolve_device(device)
    with ordinary_tensors():
        return open_checkpoint(folder, device=target, dtype=resolve_dtype(dtype, target, weight_bytes(folder)), **about)
