"""ComfyUI's IMAGE tensors and this package's pictures, in both directions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from qsit_plugin.images.reading import ImageError, read_image
from qsit_plugin.nodes.errors import InputError

if TYPE_CHECKING:
    from PIL import Image


OVERSHOOT = 0.25
"""As far outside [0, 1] values are cut off: the ringing of a resize. Further out they have another range (0 to 255,
-1 to 1), which cutting would turn into another picture. The same limit as in engines/gradients.py."""


def pictures_of(images: Any, name: str = "images") -> list[Image.Image]:
    """One 8-bit RGB picture an image of a [B, H, W, C] batch of floats in [0, 1], or of bytes.

    Values up to OVERSHOOT outside are cut off, as ComfyUI's own savers do, and alpha is dropped. A batch without
    images, NaN, infinity and other shapes are errors: an invented picture would get an invented score.

    Raises:
        InputError: not a batch of images.
        ImageError: an image of the batch that cannot be used; says which.
    """
    count = check_batch(images, name)
    return [_picture(image, f"{name}, image {i + 1} of {count}") for i, image in enumerate(images)]


def check_batch(images: Any, name: str = "images") -> int:
    """How many images a batch holds. Raises InputError for anything but one image or more as [B, H, W, C]."""
    shape = tuple(getattr(images, "shape", ()))
    if len(shape) != 4 or not hasattr(images, "detach"):
        raise InputError(f"{name} must be a batch of images [B, H, W, C], got {_kind(images, shape)}")
    if shape[0] == 0:
        raise InputError(f"{name} is an empty batch (shape {shape}); block an empty branch instead, as Q-SiT Gate does")
    if shape[3] not in (1, 3, 4) or 0 in shape:
        raise InputError(f"{name} has shape {shape}; an image has a height, a width and 1, 3 or 4 channels, last")
    return shape[0]


def _picture(image: Any, name: str) -> Image.Image:
    pixels = image[..., :3].detach().cpu()
    if str(pixels.dtype) == "torch.uint8":  # bytes that a node gave as they are
        return read_image(pixels.numpy())
    values = pixels.float().numpy()
    if not np.isfinite(values).all():
        raise ImageError(name, "holds NaN or infinite values (a black or broken picture); fix the node that made it")
    low, high = float(values.min()), float(values.max())
    if low < -OVERSHOOT or high > 1.0 + OVERSHOOT:
        raise ImageError(name, f"values from {low:.4g} to {high:.4g}; an IMAGE has 0 to 1: fix the node that made it")
    return read_image(values.clip(0.0, 1.0))


def batch_of(pictures: list[Image.Image]) -> Any:
    """A float32 [B, H, W, 3] tensor of RGB pictures of one size, on the device where ComfyUI keeps images."""
    import comfy.model_management as mm
    import torch

    pixels = np.stack([np.asarray(picture.convert("RGB"), dtype=np.float32) / 255.0 for picture in pictures])
    return torch.from_numpy(pixels).to(mm.intermediate_device())


def displayable(images: Any) -> list[Any]:
    """[H, W, 3] float tensors in [0, 1] of a batch that check_batch accepts, for looking at.

    Nothing is refused: what carries images along does not judge their values. NaN becomes black.
    """
    pixels = images[..., :3].detach().cpu()
    values = pixels.float() / 255.0 if str(pixels.dtype) == "torch.uint8" else pixels.float()
    return list(values.nan_to_num().clamp(0.0, 1.0).expand(-1, -1, -1, 3))


def _kind(value: Any, shape: tuple[int, ...]) -> str:
    if hasattr(value, "shape") and not hasattr(value, "detach"):
        return f"{type(value).__module__}.{type(value).__name__} of shape {shape}, not a torch tensor"
    return f"a tensor of shape {shape}" if hasattr(value, "shape") else type(value).__name__
