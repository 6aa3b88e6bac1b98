"""Batches: images of any size are opened ahead of time, grouped by a token budget and read in one pass each.

Used by every face; there is no second path to a score.
"""

from __future__ import annotations

import logging
import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..images.reading import ImageError, as_items, describe, is_many
from ..look import Look
from ..scores import Score
from .ambient import check_fork
from .finite import read_finite

if TYPE_CHECKING:
    from PIL import Image

    from ..model import QSiT
    from .network import Network, Prompt

log = logging.getLogger("qsit_plugin")

TOKEN_BUDGET = 16_384
"""Tokens of one batch: two large photos at full size, a dozen small ones. Nothing is padded."""

TILE_BUDGET = 96
"""Tiles of one batch: bounds the vision tower's share of memory for many small images."""

CPU_TOKEN_BUDGET = 1024
"""Tokens of one batch on a CPU, where a second large image at once only takes memory and the caches of the first."""

AHEAD = 8
"""Images that are opened and cut while the network works."""

OPENERS = 2
"""Threads that do so, at most."""


@dataclass(frozen=True)
class Reading:
    """The raw result of one look: five float32 level logits (excellent to bad) and where they came from."""

    logits: tuple[float, ...]
    level_mass: float
    size: tuple[int, int]  # width, height
    dtype: str
    mode: str


@dataclass
class _Seen:
    """An opened image, waiting for its batch: either its tiles or a Look that has been through the vision tower."""

    size: tuple[int, int]
    tiles: torch.Tensor | None
    look: Any
    tokens: int


def iter_scores(model: QSiT, images: Iterable[Any], *, errors: str = "raise") -> Iterator[Score | ImageError]:
    """Scores in the order of the images; see ``QSiT.iter_scores``."""
    for reading in iter_readings(model, images, errors=errors):
        yield reading if isinstance(reading, ImageError) else to_score(model, reading)


def to_score(model: QSiT, reading: Reading) -> Score:
    return Score.from_logits(
        reading.logits,
        model.profile.weights,
        level_mass=reading.level_mass,
        scope=model.scope,
        model=model.name,
        dtype=reading.dtype,
        mode=reading.mode,
        width=reading.size[0],
        height=reading.size[1],
        scales=model.profile.scales,
    )


def iter_readings(model: QSiT, images: Iterable[Any], *, errors: str = "raise") -> Iterator[Any]:
    """Readings in order; with ``errors="return"`` an ImageError in the place of each image that cannot be read."""
    if errors not in ("raise", "return"):
        raise ValueError(f'errors must be "raise" or "return", got {errors!r}')
    check_fork()
    images = _several(images)
    batch: list[_Seen | ImageError] = []
    for item in _opened(model, images):
        if isinstance(item, ImageError) and errors == "raise":
            raise item
        if _over_budget(model, [*batch, item]):
            yield from _flush(model, batch)
            batch = []
        batch.append(item)
    yield from _flush(model, batch)


def _several(images: Any) -> Iterable[Any]:
    """Several images; raises TypeError for a single one, whose letters, rows or channels would be taken for images."""
    if is_many(images):
        return as_items(images)
    one = isinstance(images, str | bytes | bytearray | memoryview | os.PathLike) or not isinstance(images, Iterable)
    if one or (isinstance(images, np.ndarray | torch.Tensor) and images.ndim != 1):
        raise TypeError(f"{describe(images)}: one image where several are expected; put it into a list, or use score()")
    return images


def _opened(model: QSiT, images: Iterable[Any]) -> Iterator[_Seen | ImageError]:
    """Open and cut images in threads, a few ahead; Pillow decodes and resizes without Python's lock."""
    threads = _openers(model.device)
    if threads == 0 or isinstance(images, list) and len(images) == 1:  # nothing gained by opening ahead
        yield from (_open(model, image) for image in images)
        return
    with ThreadPoolExecutor(max_workers=threads, thread_name_prefix="qsit-open") as pool:
        waiting: deque[Future[_Seen | ImageError]] = deque()
        try:
            for image in images:
                waiting.append(pool.submit(_open, model, image))
                if len(waiting) > AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _openers(device: torch.device) -> int:
    """Threads that open images ahead: two beside a GPU, on a CPU as many as it has cores that torch leaves idle.

    Where torch computes on every core, a thread beside it only disturbs those that wait for each other: on two cores a
    list took a fifth longer than its images one by one.
    """
    if device.type != "cpu":
        return OPENERS
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(OPENERS, max(0, cores - torch.get_num_threads()))


def _open(model: QSiT, image: Any) -> _Seen | ImageError:
    tiling = model.network.tiling
    prompt = model.prompt(model.profile.question, model.profile.answer_prefix)
    if isinstance(image, Look):
        look = model.encode(image)  # refuses the look of another model
        tokens = tiling.token_count(*look.size)
        model.room(prompt, tokens)
        return _Seen(look.size, None, look, tokens)
    try:
        picture = model.read(image)
    except ImageError as error:
        return error
    tokens = tiling.token_count(*picture.size)
    model.room(prompt, tokens)
    return _Seen(picture.size, tiling.cut(picture), None, tokens)


def _over_budget(model: QSiT, batch: list[_Seen | ImageError]) -> bool:
    budget = CPU_TOKEN_BUDGET if model.device.type == "cpu" else TOKEN_BUDGET
    seen = [item for item in batch if isinstance(item, _Seen)]
    tiles = sum(len(item.tiles) for item in seen if item.tiles is not None)
    return len(seen) > 1 and (sum(item.tokens for item in seen) > budget or tiles > TILE_BUDGET)


def _flush(model: QSiT, batch: list[_Seen | ImageError]) -> Iterator[Reading | ImageError]:
    readings = iter(read_batch(model, [item for item in batch if isinstance(item, _Seen)]))
    for item in batch:
        yield item if isinstance(item, ImageError) else next(readings)


@torch.inference_mode()
def read_batch(model: QSiT, batch: list[_Seen]) -> list[Reading]:
    """Read one batch; out of memory halves it, down to a single image."""
    if not batch:
        return []
    try:
        return _read(model, batch)
    except torch.OutOfMemoryError:
        if len(batch) == 1:
            width, height = batch[0].size
            raise torch.OutOfMemoryError(
                f"out of memory on {model.device} with a single {width}x{height} image ({batch[0].tokens} image "
                "tokens): free memory, use a smaller checkpoint, or device='cpu'"
            ) from None
    if model.device.type == "cuda":
        torch.cuda.empty_cache()
    half = len(batch) // 2
    log.warning("out of memory with %d images at once; going on with %d", len(batch), half)
    return read_batch(model, batch[:half]) + read_batch(model, batch[half:])


def _read(model: QSiT, batch: list[_Seen]) -> list[Reading]:
    profile = model.profile
    prompt = model.prompt(profile.question, profile.answer_prefix)
    (logits, total), network = read_finite(
        model, lambda network: _level_logits(network, prompt, batch, profile.level_token_ids)
    )
    mass = (logits.logsumexp(-1) - total).exp()
    name, mode = str(network.dtype).removeprefix("torch."), model.mode(network)
    rows = zip(logits.tolist(), mass.tolist(), batch, strict=True)
    return [Reading(tuple(row), share, seen.size, name, mode) for row, share, seen in rows]


def _level_logits(
    network: Network, prompt: Prompt, batch: list[_Seen], ids: tuple[int, ...]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Float32 (B, 5) level logits and (B,) logarithm of all tokens' summed exponentials, on the CPU.

    Fresh images go through one pass without a cache; a Look reads on from its own prefix, which it keeps. The level
    logits take five rows of the head in float32; the level mass needs all rows once an image, at its last token only.
    """
    states = []
    fresh = iter(_fresh_states(network, prompt, batch))
    for seen in batch:
        if seen.look is None:
            states.append(next(fresh))
        else:
            states.append(network.stepper(seen.look.prefix(prompt.before, network), prompt.after)(None)[0])
    together = torch.stack(states)
    logits = network.token_logits(together, ids)
    return logits.cpu(), network.logits(together).logsumexp(-1).cpu()


def _fresh_states(network: Network, prompt: Prompt, batch: list[_Seen]) -> torch.Tensor | list[torch.Tensor]:
    """(B', D) last states of the images that no Look has seen before, by one pass of either network."""
    tiles = [seen.tiles for seen in batch if seen.tiles is not None]
    if not tiles:
        return []
    tokens = network.image_tokens(tiles, [seen.size for seen in batch if seen.tiles is not None])
    return network.last_states(network.embed_prompts(prompt, tokens))


def quality_map(
    model: QSiT,
    picture: Image.Image,
    *,
    window: int | None,
    overlap: float,
    on_region: Callable[[], None] | None = None,
) -> np.ndarray:
    """Float32 (H, W) in [0, 1]: every pixel's blend of the scores of the square regions that cover it.

    Args:
        window: side of a region in pixels; None takes a quarter of the shorter side, but at least one tile.
        overlap: share of a region that its neighbour covers too, 0 to 0.9.
        on_region: called when a region's score is there; what it raises ends the map. Regions are scored in batches.

    The regions are scored as images of their own: a local opinion, not a decomposition of the whole image's score.
    """
    width, height = picture.size
    side = max(model.network.tiling.tile, min(width, height) // 4) if window is None else window
    if side < 8:
        raise ValueError(f"window must be at least 8 pixels, got {side}")
    if not 0.0 <= overlap <= 0.9:
        raise ValueError(f"overlap must be between 0 and 0.9, got {overlap}")
    side_x, side_y = min(side, width), min(side, height)
    boxes = [
        (x, y, x + side_x, y + side_y)
        for y in _starts(height, side_y, overlap)
        for x in _starts(width, side_x, overlap)
    ]
    bump = np.outer(_bump(side_y), _bump(side_x))
    total, weight = np.zeros((height, width)), np.zeros((height, width))
    scores = iter_scores(model, (picture.crop(box) for box in boxes))
    for (left, top, right, bottom), score in zip(boxes, scores, strict=True):
        assert isinstance(score, Score)  # errors="raise": an unreadable region has raised already
        total[top:bottom, left:right] += score.value * bump
        weight[top:bottom, left:right] += bump
        if on_region is not None:
            on_region()
    return (total / weight).clip(0.0, 1.0).astype(np.float32)


def _starts(length: int, side: int, overlap: float) -> list[int]:
    """Evenly spread starts so that regions cover the whole length and overlap by at least the share asked for."""
    if length == side:
        return [0]
    count = 1 + math.ceil((length - side) / max(1.0, side * (1.0 - overlap)))
    return [round(i * (length - side) / (count - 1)) for i in range(count)]


def _bump(side: int) -> np.ndarray:
    """Weights that fall off towards a region's border without reaching zero, so that every pixel has an opinion."""
    return np.sin(np.pi * (np.arange(side) + 0.5) / side) ** 2 + 1e-3
