"""Scores as a function that can be differentiated with respect to the pixels, for losses and for restoration.

The same forward pass as in inference, with two differences: pixels stay floats, so that there is a derivative (the
exact route rounds to 8 bits after each resize; the tiles agree within one grey level), and activations are recomputed
in the backward pass instead of being kept. The weights stay frozen: only the image gets a gradient.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import PIL
import torch
import torch.nn.functional as F

from qsit_plugin.images.arrays import CHANNELS, warn_of_both_layouts
from qsit_plugin.images.errors import ImageError, check_size
from qsit_plugin.images.reading import describe
from qsit_plugin.tiling import Tiling

from .ambient import check_fork, without_autocast
from .batches import SCORING, TILE_BUDGET
from .finite import after_overflow, non_finite
from .torch_engine import VISION_CHUNK, TorchEngine

if TYPE_CHECKING:
    from qsit_plugin.model import QSiT

PILLOW = tuple(int(part) for part in re.findall(r"\d+", PIL.__version__)[:2])
"""The installed Pillow, (major, minor): newer ones resize some tall images in another order, with other roundings."""

OVERSHOOT = 0.25
"""How far outside [0, 1] a value may lie and is still clipped: a step of an optimiser or a little ringing of a resize.

Further out it is taken for another range (0 to 255, -1 to 1, a mean and deviation taken off), which clipping would turn
into another picture. A photo in -1 to 1 passes only where nothing in it is darker than .375 of white. Who means more
overshoot clamps it: the gradient is the same, since a clipped value has none."""


def level_probabilities(model: QSiT, images: Sequence[torch.Tensor]) -> torch.Tensor:
    """Float32 (N, 5) probabilities of the levels, excellent to bad, differentiable with respect to the images.

    Args:
        images: tensors (1 or 3, H, W) of any sizes, on any device: floats in [0, 1], or bytes, which have no gradient;
            (3, H, 3) too is read as channels first, with a warning. Floats up to OVERSHOOT outside are clipped, as
            saving the image would; a clipped value has no gradient.

    Raises:
        ImageError: not such a tensor, too large for the model's ``max_pixels``, NaN or infinity in it, or values of
            another range.
        ContextError: the profile's question and an image are together longer than the context.
        NonFiniteError: the logits overflowed in the dtype of the weights.
        ValueError: a model on an engine that has no gradients.
    """
    if model.engine.name != "torch":
        raise ValueError(f"the engine {model.engine.name!r} has no gradients: load {model.name} with engine='torch'")
    check_fork()
    floats = [_as_floats(image, model.max_pixels) for image in images]
    parts = [_level_logits(model, batch) for batch in _batches(model.engine.tiling, floats)]
    return torch.cat([part.to(model.device) for part in parts]).softmax(-1)


def _as_floats(image: torch.Tensor, max_pixels: int | None) -> torch.Tensor:
    """The image as floats in [0, 1], but for a little overshoot; raises ImageError for what it cannot be made of."""
    name = describe(image)
    if image.is_inference():
        image = image.clone()  # autograd keeps no tensor of inference mode; the gradient passes through the copy
    is_float = image.is_floating_point()
    if not (is_float or image.dtype == torch.uint8) or image.ndim != 3 or image.shape[0] not in (1, 3):
        raise ImageError(name, f"{image.dtype}; a gradient needs a float tensor (1 or 3, H, W), values in [0, 1]")
    if 0 in image.shape:
        raise ImageError(name, "zero-sized; a gradient needs a float tensor (1 or 3, H, W) with pixels")
    check_size(image.shape[2], image.shape[1], name, max_pixels)
    if image.shape[2] in CHANNELS:
        warn_of_both_layouts(tuple(image.shape), name, channels_first=True)
    if not is_float:
        return image.float() / 255.0
    low, high = (float(limit) for limit in image.detach().aminmax())  # NaN wherever there is one
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ImageError(name, "holds NaN or infinite values; fix the code that produced them")
    if low < -OVERSHOOT or high > 1.0 + OVERSHOOT:
        raise ImageError(name, f"floats from {low:.6g} to {high:.6g}, outside [0, 1]; {_cure(low, high)} first")
    return image


def _cure(low: float, high: float) -> str:
    if low >= 0.0 and 2.0 < high <= 255.0:
        return "divide by 255"
    if low >= -1.0 and high <= 1.0:
        return "take (image + 1) / 2, if -1 is black,"
    return "bring black to 0 and white to 1, or clamp an overshoot,"


def _batches(tiling: Tiling, images: Sequence[torch.Tensor]) -> Iterator[list[torch.Tensor]]:
    """Neighbours share a pass within the budgets of scoring, which bound the memory of the backward pass, too."""
    batch: list[torch.Tensor] = []
    longest = tiles = 0
    for image in images:
        height, width = image.shape[-2:]
        tokens, count = tiling.token_count(width, height), tiling.tile_count(width, height)
        if batch and (max(longest, tokens) * (len(batch) + 1) > SCORING.tokens or tiles + count > TILE_BUDGET):
            yield batch
            batch, longest, tiles = [], 0, 0
        batch.append(image)
        longest, tiles = max(longest, tokens), tiles + count
    if batch:
        yield batch


def _level_logits(model: QSiT, images: list[torch.Tensor]) -> torch.Tensor:
    """(B, 5) level logits, of the second engine where the first overflows."""
    profile, sizes = model.profile, [(image.shape[-1], image.shape[-2]) for image in images]
    prompt = model.prompt(profile.question, profile.answer_prefix)
    for width, height in sizes:
        model.room(prompt, model.engine.tiling.token_count(width, height))

    def read(engine: TorchEngine) -> torch.Tensor:
        with engine.arithmetic():
            tiles = [normalise(engine.tiling, cut(engine.tiling, image.to(engine.device))) for image in images]
            chunks = torch.cat(tiles).to(engine.dtype).split(VISION_CHUNK)
            features = torch.cat([engine.features(chunk) for chunk in chunks])
            tokens = engine.pack(features, [len(own) for own in tiles], sizes)
            return engine.token_logits(engine.last_states(prompt, tokens), profile.level_token_ids)

    first = model.engine.recomputing()
    logits = read(first)
    if logits.detach().isfinite().all():
        return logits
    second = after_overflow(model, first).recomputing()
    logits = read(second)
    if not logits.detach().isfinite().all():
        raise non_finite(model, second)
    return logits


def cut(tiling: Tiling, image: torch.Tensor) -> torch.Tensor:
    """Base view and tiles of a float image (1 or 3, H, W) in [0, 1]: float32 (tiles, 3, S, S) in grey levels, 0 to 255.

    ``Tiling.cut`` without the rounding: rounded, the two differ by at most one grey level.
    """
    picture = image.float().clamp(0.0, 1.0).expand(3, -1, -1)[None] * 255.0
    height, width = picture.shape[-2:]
    top, left, new_height, new_width = tiling.fitted(width, height)
    canvas_height, canvas_width = tiling.canvas(width, height)
    margins = (left, canvas_width - new_width - left, top, canvas_height - new_height - top)
    canvas = F.pad(resize(picture, new_height, new_width), margins)[0]
    rows, columns = canvas_height // tiling.tile, canvas_width // tiling.tile
    split = canvas.reshape(3, rows, tiling.tile, columns, tiling.tile).permute(1, 3, 0, 2, 4).flatten(0, 1)
    return torch.cat([resize(picture, tiling.tile, tiling.tile), split])


def vertical_first(old_height: int, old_width: int, height: int, width: int, pillow: tuple[int, ...] = PILLOW) -> bool:
    """Whether Pillow resizes vertically first: never before 12.2, very tall images in 12.2 and 12.3, and since 13.0
    wherever the height loses more than twice as many pixels as the width (found by comparing the results)."""
    if height >= old_height or pillow < (12, 2):
        return False
    if pillow < (13, 0):
        return old_height > 100 * old_width
    return old_height - height > 2 * (old_width - width)


def resize(pictures: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Pillow's antialiased bicubic resize of float (N, 3, H, W) in grey levels, without its rounding.

    One direction after the other, in Pillow's order and with its clipping between them: resizing in both at once
    differs by tens of grey levels beside hard edges.
    """
    first = vertical_first(pictures.shape[-2], pictures.shape[-1], height, width)
    for vertical in (first, not first):
        size = (height, pictures.shape[-1]) if vertical else (pictures.shape[-2], width)
        if size != tuple(pictures.shape[-2:]):
            pictures = F.interpolate(pictures, size, mode="bicubic", antialias=True, align_corners=False)
            pictures = pictures.clamp(0.0, 255.0)
    return pictures


def normalise(tiling: Tiling, tiles: torch.Tensor) -> torch.Tensor:
    """Grey levels (…, 3, H, W) -> what the vision tower takes, as ``torch_engine.normalise`` does for bytes."""
    mean, std = (
        torch.tensor(values, dtype=torch.float32, device=tiles.device)[:, None, None]
        for values in (tiling.mean, tiling.std)
    )
    return (tiles / 255.0 - mean) / std


def value(probabilities: torch.Tensor, weights: Sequence[float]) -> torch.Tensor:
    """(N, 5) probabilities and the weights of the levels -> (N, 1) scores in [0, 1]."""
    column = torch.tensor(weights, device=probabilities.device, dtype=probabilities.dtype)[:, None]
    with without_autocast(probabilities.device):  # a loss in 16 bits has three digits
        return probabilities @ column
