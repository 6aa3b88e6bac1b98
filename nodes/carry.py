"""Selecting images of a batch, with the latents and masks that belong to them. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qsit_plugin.nodes.errors import InputError


def check_latents(latents: Any, count: int) -> None:
    """Raise InputError unless there is one latent an image."""
    samples = latents.get("samples") if isinstance(latents, dict) else None
    if samples is None:
        raise InputError("latents must be a LATENT, a dictionary with samples")
    if len(samples) != count:
        raise InputError(f"{len(samples)} latents for {count} images: connect the latents that these were decoded from")


def check_masks(masks: Any, count: int) -> None:
    """Raise InputError unless there is one mask an image, or a single one for all."""
    if masks.ndim not in (2, 3):
        raise InputError(f"masks must be [B, H, W], got shape {tuple(masks.shape)}")
    if masks.ndim == 3 and len(masks) not in (1, count):
        raise InputError(f"{len(masks)} masks for {count} images: there must be one for each, or one for all")


def some_images(images: Any, indices: Sequence[int]) -> Any:
    return images[list(indices)]


def some_latents(latents: dict[str, Any], indices: Sequence[int]) -> dict[str, Any]:
    """The latents at the indices; noise masks and batch numbers go with them, everything else stays."""
    count = len(latents["samples"])
    chosen = dict(latents, samples=latents["samples"][list(indices)])
    mask = latents.get("noise_mask")
    if mask is not None and len(mask) == count:
        chosen["noise_mask"] = mask[list(indices)]
    if latents.get("batch_index") is not None:
        chosen["batch_index"] = [latents["batch_index"][i] for i in indices]
    return chosen


def some_masks(masks: Any, indices: Sequence[int], count: int) -> Any:
    """The masks at the indices. A single mask for a batch of ``count`` images belongs to all of them: it stays."""
    if masks.ndim == 2 or len(masks) != count:
        return masks
    return masks[list(indices)]
