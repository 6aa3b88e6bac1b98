"""From images to the logits of the five level words, and from them to a Score; every score is computed here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from qsit_plugin.errors import ImageError
from qsit_plugin.scores import Score

from .base import Engine, Logits, Prompt
from .batches import SCORING, Item, in_batches
from .finite import read_finite

if TYPE_CHECKING:
    from qsit_plugin.model import QSiT


@dataclass(frozen=True)
class Reading:
    """The raw result for one image: five float32 level logits (excellent to bad) and how they were computed."""

    logits: tuple[float, ...]
    level_mass: float
    size: tuple[int, int]  # width, height
    dtype: str
    mode: str
    fingerprint: str = ""
    """Of the weights that computed it."""
    engine: str = ""


def iter_scores(model: QSiT, images: Iterable[Any], *, errors: str = "raise") -> Iterator[Score | ImageError]:
    """Scores in the order of the images; see ``QSiT.iter_scores``."""
    for reading in iter_readings(model, images, errors=errors):
        yield to_score(model, reading) if isinstance(reading, Reading) else reading


def iter_readings(model: QSiT, images: Iterable[Any], *, errors: str = "raise") -> Iterator[Any]:
    """Readings in order; with ``errors="return"`` an ImageError in the place of each image that cannot be read."""
    prompt = model.prompt(model.profile.question, model.profile.answer_prefix)
    return in_batches(model, prompt, images, lambda items: read_items(model, prompt, items), SCORING, errors=errors)


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
        fingerprint=reading.fingerprint,
        scope_kind=model.profile.kind,
        engine=reading.engine,
    )


def read_items(model: QSiT, prompt: Prompt, items: list[Item]) -> list[Reading]:
    """One batch of opened images. Raises NonFiniteError as ``read_finite`` does."""
    ids = model.profile.level_token_ids
    chosen, total, engines = read_finite(
        model, len(items), lambda engine, rows: _logits(engine, prompt, [items[row] for row in rows], ids)
    )
    shift = chosen.max(-1, keepdims=True).astype(np.float64)
    mass = np.exp(np.log(np.exp(chosen - shift).sum(-1)) + shift[:, 0] - total)
    rows, made_by = zip(chosen.tolist(), mass.tolist(), items, engines, strict=True), model.fingerprint
    return [
        Reading(tuple(row), share, one.size, by.dtype_name, model.mode(by), made_by, by.name)
        for row, share, one, by in rows
    ]


def _logits(engine: Engine, prompt: Prompt, items: Sequence[Item], ids: tuple[int, ...]) -> Logits:
    """Fresh images go through one pass without a cache; a Look continues from its cached prefix."""
    fresh = [place for place, item in enumerate(items) if item.look is None]
    chosen, total = np.empty((len(items), len(ids)), np.float32), np.empty(len(items), np.float32)
    if fresh:
        some = [items[place] for place in fresh]
        if len(some) == 1:
            images = [engine.begin(some[0].tiles, some[0].size)]
        else:
            images = engine.encode([item.tiles for item in some], [item.size for item in some])
        found = engine.read(prompt, images, ids)
        chosen[fresh], total[fresh] = found.chosen, found.total
    for place, item in enumerate(items):
        if item.look is not None:
            found = engine.read_after(item.prefix(engine, prompt.before), prompt.after, ids)
            chosen[place], total[place] = found.chosen[0], found.total[0]
    return Logits(chosen, total)
