"""Arrays and tensors -> one 8-bit RGB Pillow image."""

from __future__ import annotations

import sys
import warnings
from typing import Any

import numpy as np
from PIL import Image

from .errors import ImageError, check_size

CHANNELS = (1, 3, 4)
FLOAT_SLACK = 1e-6
"""A float this far outside [0, 1] is a rounding error: clipped, not refused."""


def is_tensor(source: Any) -> bool:
    """A torch tensor, without importing torch: there is none before torch is imported."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(source, getattr(torch, "Tensor", ()))


def from_array(array: np.ndarray, name: str, max_pixels: int | None, *, channels_first: bool) -> Image.Image:
    """The picture in an array; ``channels_first``: which layout to take, with a warning, where both fit."""
    shape = tuple(array.shape)
    if 0 in shape:
        raise ImageError(name, "zero-sized; an image needs at least one pixel")
    if array.ndim == 4:
        if shape[0] != 1:
            raise ImageError(name, f"holds {shape[0]} images where one is expected; give them one by one or as a list")
        array = array[0]
    if array.ndim == 2:  # grey, and no axis to mistake for channels
        array = array[:, :, None]
    elif array.ndim == 3:
        array = _channels_last(array, name, channels_first)
    else:
        raise ImageError(name, f"has {len(shape)} axes; an image is (H, W), (H, W, C) or (C, H, W)")
    check_size(array.shape[1], array.shape[0], name, max_pixels)
    pixels = _to_uint8(array[:, :, :3], name)
    pixels = np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels
    return Image.fromarray(np.ascontiguousarray(pixels))


def _channels_last(array: np.ndarray, name: str, channels_first: bool) -> np.ndarray:
    first, last = array.shape[0] in CHANNELS, array.shape[2] in CHANNELS
    if not (first or last):
        raise ImageError(
            name, f"shape {tuple(array.shape)} has no axis of channels; 1, 3 or 4 channels must come first or last"
        )
    if first and last:
        warn_of_both_layouts(tuple(array.shape), name, channels_first)
    return array.transpose(1, 2, 0) if first and (channels_first or not last) else array


def warn_of_both_layouts(shape: tuple[int, ...], name: str, channels_first: bool) -> None:
    """Warn which layout was taken for a shape such as (3, 50, 3); once for each shape, as Python's warnings are."""
    if channels_first:
        taken, width, height, cure = "(C, H, W), as torch has it,", shape[2], shape[1], "permute(2, 0, 1)"
    else:
        taken, width, height, cure = "(H, W, C), as NumPy has it,", shape[1], shape[0], "transpose(1, 2, 0)"
    warnings.warn(
        f"{name}: channels could come first or last; read as {taken} {width} wide and {height} high. If that is not "
        f"meant, give it after .{cure}; a PIL image leaves no doubt",
        stacklevel=2,
    )


def warn_of_few_bits(high: int, name: str) -> None:
    """Say that 16-bit values, white at 65,535, use at most 12 bits: such a picture is nearly black, or its white was
    meant to be lower, as cameras and scanners that write 10 or 12 bits into 16 mean it."""
    if 0 < high < 4096:
        warnings.warn(
            f"{name}: 16-bit values up to {high:,}, read as nearly black since 65,535 is white; if {high:,} is near "
            "white, scale the values first",
            stacklevel=2,
        )


def _to_uint8(values: np.ndarray, name: str) -> np.ndarray:
    if values.dtype == np.uint8:
        return values
    if values.dtype.kind == "u" and values.dtype.itemsize == 2:
        warn_of_few_bits(int(values.max()), name)
        return (values >> 8).astype(np.uint8)
    if values.dtype.kind != "f":
        raise ImageError(name, f"values of type {values.dtype}; use uint8, uint16, or floats in [0, 1]")
    if values.dtype == np.float16:
        values = values.astype(np.float32)  # 255 times a half is not exact in half precision
    low, high = float(values.min()), float(values.max())  # NaN wherever there is one
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ImageError(name, "holds NaN or infinite values; fix the code that produced them")
    if low < -FLOAT_SLACK or high > 1 + FLOAT_SLACK:
        cure = "divide by 255" if low >= 0 and 2 < high <= 255 else "clip or rescale"
        raise ImageError(name, f"floats from {low:.6g} to {high:.6g}, outside [0, 1]; {cure} first")
    return np.rint(values * 255).clip(0, 255).astype(np.uint8)


def tensor_to_array(tensor: Any, name: str) -> np.ndarray:
    """The values of a tensor on any device, in any strided layout, with or without gradient."""
    import torch

    if tensor.layout != torch.strided or tensor.is_quantized:
        raise ImageError(name, "a sparse or quantised tensor; give a plain one")
    if tensor.is_meta:
        raise ImageError(name, "a tensor on the meta device holds no pixels; give one with values")
    tensor = tensor.detach()
    if tensor.is_floating_point() and tensor.dtype not in (torch.float32, torch.float64):
        tensor = tensor.float()  # bfloat16 and the 8-bit floats have no NumPy type; the conversion is exact
    return tensor.cpu().resolve_conj().resolve_neg().numpy()
