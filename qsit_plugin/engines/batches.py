"""Batching: images are prefetched, grouped within a budget, and processed together.

Scores and answers use it; out of memory halves a batch, down to a single image.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from operator import call
from typing import TYPE_CHECKING, Any, TypeVar

from qsit_plugin.errors import ImageError
from qsit_plugin.images.reading import Content, as_items, describe, is_file, is_many
from qsit_plugin.look import Look
from qsit_plugin.parallel import in_order

from .base import Engine, Prompt
from .cores import usable_cores

if TYPE_CHECKING:
    from qsit_plugin.model import QSiT

log = logging.getLogger("qsit_plugin")

TILE_BUDGET = 96
"""Tiles of one batch: bounds the vision tower's share of memory for many small images."""

PREFETCH = 16
"""Images that are opened and cut while the engine works."""

GPU_IO_THREADS, CPU_IO_THREADS = 16, 2
"""Threads that do so, at most. A photo of 12 megapixels takes .27 s of one core to decode and cut, one of 1024x768
.02 s; a large GPU is expected to look at some 40 a second with ``qsit-mini``, and would wait for fewer threads."""

UNCHANGING = str | bytes | os.PathLike | Content | Look
"""Images that stay what they are when the next one is taken from an iterator."""

Given = TypeVar("Given")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Budget:
    """How much goes into one batch: tokens of its images, on a GPU and on a CPU, and images. ``padded``: count each
    image as long as the longest, as the KV caches of answers are."""

    tokens: int
    cpu_tokens: int
    images: int = 1_000_000
    padded: bool = False

    def holds(self, engine: Engine, items: Sequence[Item]) -> bool:
        most = self.cpu_tokens if engine.place == "cpu" else self.tokens
        tiles = sum(len(item.tiles) for item in items if item.tiles is not None)
        counts = [item.tokens for item in items]
        tokens = max(counts) * len(counts) if self.padded else sum(counts)
        return len(items) == 1 or (tokens <= most and tiles <= TILE_BUDGET and len(items) <= self.images)


SCORING = Budget(tokens=16_384, cpu_tokens=1024)
"""Two large photos at full size, a dozen small ones. A CPU gains nothing from a second large image at once, which only
takes memory and the caches of the first."""

WRITING = Budget(tokens=16_384, cpu_tokens=16_384, images=16, padded=True)
"""A step of several answers costs little more than one answer's, on a CPU too; what limits them is their KV
caches."""


@dataclass(frozen=True)
class Item:
    """An opened image, waiting for its batch: a Look, or the tiles of what has not been through the vision tower.

    ``tiles``: uint8 (1 + rows * columns, 3, S, S), None beside a look.
    ``room``: tokens that the context has left after the prompt and the image.
    """

    size: tuple[int, int]
    tiles: Any
    look: Look | None
    tokens: int
    room: int

    def prefix(self, engine: Engine, before: tuple[int, ...]) -> Any:
        """The KV cache up to the image; kept by a Look only."""
        if self.look is not None:
            return self.look.prefix(before, engine)
        return engine.prefill(before, engine.begin(self.tiles, self.size))


def open_item(model: QSiT, prompt: Prompt, image: Any) -> Item:
    """Open and cut one image. Raises ImageError for a bad one, ContextError where it leaves the prompt no room."""
    tiling, look = model.engine.tiling, image if isinstance(image, Look) else None
    picture = model.own(look).image if look is not None else model.read(image)
    tokens = tiling.token_count(*picture.size)
    room = model.room(prompt, tokens)
    return Item(picture.size, None if look is not None else tiling.cut(picture), look, tokens, room)


def in_batches(
    model: QSiT,
    prompt: Prompt,
    images: Iterable[Any],
    work: Callable[[list[Item]], list[Result]],
    budget: Budget,
    *,
    errors: str = "raise",
    returned: tuple[type[Exception], ...] = (ImageError,),
) -> Iterator[Result | Exception]:
    """``work`` on the images, batch by batch: its results in the order of the images, lazily.

    ``errors="return"`` puts an error of a type in ``returned`` in the place of an image that cannot be worked on;
    ``"raise"`` raises it after the results of the images before it. Raises ValueError for another word, TypeError for
    a single image.
    """
    if errors not in ("raise", "return"):
        raise ValueError(f'errors must be "raise" or "return", got {errors!r}')
    images = _several(images)
    if model.engine.at_once > 1 and not budget.padded and not _is_one(images):
        yield from _each(model, prompt, images, work, errors, returned)
        return
    batch: list[Item | Exception] = []
    for item in _prefetched(model, prompt, images, returned):
        if isinstance(item, Exception) and errors == "raise":
            yield from _flush(model.engine, batch, work)
            raise item
        items = [one for one in (*batch, item) if isinstance(one, Item)]
        if isinstance(item, Item) and not budget.holds(model.engine, items):
            yield from _flush(model.engine, batch, work)
            batch = []
        batch.append(item)
    yield from _flush(model.engine, batch, work)


def _flush(
    engine: Engine, batch: list[Item | Exception], work: Callable[[list[Item]], list[Result]]
) -> Iterator[Result | Exception]:
    results = iter(_halving(engine, [item for item in batch if isinstance(item, Item)], work))
    for item in batch:
        yield item if isinstance(item, Exception) else next(results)


def _halving(engine: Engine, items: list[Item], work: Callable[[list[Item]], list[Result]]) -> list[Result]:
    """``work`` on one batch; out of memory halves it, down to a single image."""
    if not items:
        return []
    try:
        return work(items)
    except engine.memory_errors as error:
        if len(items) == 1:
            width, height = items[0].size
            raise type(error)(
                f"out of memory on {engine.place} with a single {width}x{height} image ({items[0].tokens} image "
                "tokens): free memory, use a smaller checkpoint, or device='cpu'"
            ) from None
    engine.free_memory()
    half = len(items) // 2
    log.warning("out of memory with %d images at once; going on with %d", len(items), half)
    return _halving(engine, items[:half], work) + _halving(engine, items[half:], work)


def _several(images: Any) -> Iterable[Any]:
    """Several images; raises TypeError for a single one, whose letters, lines or rows would be taken for images."""
    if is_many(images):
        return as_items(images)
    one = isinstance(images, str | bytes | bytearray | memoryview | os.PathLike) or is_file(images)
    if one or not isinstance(images, Iterable) or getattr(images, "ndim", 1) != 1:  # an array or a tensor
        raise TypeError(f"{describe(images)}: one image where several are expected; put it into a list, or use score()")
    return images


Opening = Callable[[], "Item | Exception"]


def _openings(
    model: QSiT, prompt: Prompt, images: Iterable[Any], returned: tuple[type[Exception], ...]
) -> Iterator[Opening]:
    """For each image what opens it, in whatever thread.

    An iterator may give one buffer again and again, as cameras do, or the frames of one file: what it gave is opened
    before the next is taken from it, unless it is UNCHANGING.
    """

    def opened(image: Any) -> Item | Exception:
        try:
            return open_item(model, prompt, image)
        except returned as error:
            return error

    for image in images:
        if isinstance(images, list | tuple) or isinstance(image, UNCHANGING):
            yield partial(opened, image)
        else:
            yield partial(_itself, opened(image))


def _itself(item: Item | Exception) -> Item | Exception:
    return item


def _prefetched(
    model: QSiT, prompt: Prompt, images: Iterable[Any], returned: tuple[type[Exception], ...]
) -> Iterator[Item | Exception]:
    """Open and cut images in threads, a few ahead; Pillow decodes and resizes without Python's lock."""
    openings, threads = _openings(model, prompt, images, returned), _io_threads(model.engine)
    if threads == 0 or _is_one(images):  # nothing gained by prefetching
        return map(call, openings)
    return in_order(call, openings, threads=threads, ahead=PREFETCH + 1, helping=False)


def _each(
    model: QSiT,
    prompt: Prompt,
    images: Iterable[Any],
    work: Callable[[list[Item]], list[Result]],
    errors: str,
    returned: tuple[type[Exception], ...],
) -> Iterator[Result | Exception]:
    """``in_batches`` of an engine that works on several images at the same time: each by itself, from opening it on."""

    def done(opening: Opening) -> Result | Exception:
        item = opening()
        return item if isinstance(item, Exception) else _halving(model.engine, [item], work)[0]

    openings = _openings(model, prompt, images, returned)
    for result in side_by_side(model.engine, done, openings, listed=isinstance(images, list | tuple)):
        if isinstance(result, Exception) and errors == "raise":
            raise result
        yield result


def side_by_side(
    engine: Engine, work: Callable[[Given], Result], items: Iterable[Given], *, listed: bool = True
) -> Iterator[Result]:
    """``work`` on each item, in order, and on as many at the same time as the engine works on.

    Behind a large image small ones are done ahead, several of what is ``listed``, fewer of an iterator, whose items may
    be large or come from a camera.
    """
    if engine.at_once == 1:
        return map(work, items)

    def alone(item: Given) -> Result:
        with engine.alone():
            return work(item)

    return in_order(alone, items, threads=engine.at_once - 1, ahead=(8 if listed else 2) * engine.at_once, helping=True)


def _is_one(images: Iterable[Any]) -> bool:
    return isinstance(images, list | tuple) and len(images) == 1


def _io_threads(engine: Engine) -> int:
    """Threads that prefetch images: beside a GPU one a core, on a CPU as many as the engine leaves cores idle.

    Where every core shares each operation, another thread only delays them: on two cores a list took a fifth longer
    than its images one by one. An engine whose cores work on an image each is not delayed.
    """
    if engine.place != "cpu":
        return min(GPU_IO_THREADS, max(2, usable_cores()))
    idle = usable_cores() - (engine.threads if engine.at_once == 1 else 0)
    return min(CPU_IO_THREADS, max(0, idle))
