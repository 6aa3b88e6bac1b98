"""The check for NaN and infinity that every read of logits passes.

Scores, choices, attributes, answers and gradients come through here: finite, or read again in bfloat16, or an error.
NaN logits would otherwise silently become a choice of ``[nan, nan]`` or an empty answer.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from qsit_plugin.errors import NonFiniteError

from .base import Engine, Logits

if TYPE_CHECKING:
    from qsit_plugin.model import QSiT

    from .torch_engine import TorchEngine

log = logging.getLogger("qsit_plugin")

OVERFLOWED = "bfloat16 after float16 overflowed"
"""``mode`` of a Score or an Answer that was computed a second time."""


def read_finite(
    model: QSiT, count: int, read: Callable[[Engine, list[int]], Logits]
) -> tuple[np.ndarray, np.ndarray, list[Engine]]:
    """``chosen`` (count, …) and ``total`` (count,) of Logits, and the engine that gave each row.

    Args:
        read: from an engine and the numbers of rows to the logits of those rows. Called again for the rows that are not
            finite, with the model's second engine, where there is one.

    Raises:
        NonFiniteError: as for ``after_overflow``.
    """
    engines: list[Engine] = [model.engine] * count
    found = read(model.engine, list(range(count)))
    wrong = [row for row in range(count) if not _finite(found, row)]
    if not wrong:
        return found.chosen, found.total, engines
    second = after_overflow(model, model.engine)
    again = read(second, wrong)
    if not all(_finite(again, place) for place in range(len(wrong))):
        raise non_finite(model, second)
    chosen, total = np.array(found.chosen), np.array(found.total)
    chosen[wrong], total[wrong] = again.chosen, again.total
    for row in wrong:
        engines[row] = second
    return chosen, total, engines


def after_overflow(model: QSiT, engine: Engine) -> TorchEngine:
    """The engine to read with again after logits of this one were not finite: the model's second, in bfloat16.

    Raises:
        NonFiniteError: in a dtype that the user chose, or that no other dtype would cure.
    """
    if engine.dtype_name != "float16" or not model.automatic_dtype:
        raise non_finite(model, engine)
    log.warning("float16 overflowed on %s: reading again in bfloat16", model.name)
    return model.bfloat16_engine()


def non_finite(model: QSiT, engine: Engine) -> NonFiniteError:
    """The error, with its cure."""
    if engine.dtype_name == "float16":
        cure = "load it with dtype='bfloat16' or dtype='float32'"
    else:
        whose = "those of the adapter or its own" if model.adapter is not None else "its"
        cure = f"this dtype does not overflow, so {whose} weights are damaged: get the checkpoint again"
    return NonFiniteError(
        f"{model.name} ({model.folder}) gave logits that are not finite in {engine.dtype_name}: {cure}"
    )


def _finite(logits: Logits, row: int) -> bool:
    return bool(np.isfinite(logits.chosen[row]).all() and np.isfinite(logits.total[row]))
