"""The one check that every read of logits passes: finite, or read again in bfloat16, or an error.

Scores, choices, attributes, answers and gradients come through here. NaN logits would otherwise become a choice of
``[nan, nan]`` or an empty answer without a word.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import torch

from qsit_plugin.weights.errors import WeightsError

if TYPE_CHECKING:
    from ..model import QSiT
    from .network import Network

log = logging.getLogger("qsit_plugin")

OVERFLOWED = "bfloat16 after float16 overflowed"
"""How a Score or an Answer says in ``mode`` that it was read a second time."""


class NonFiniteError(WeightsError, FloatingPointError):
    """Logits that are NaN or infinite: the weights are damaged, or too large for a dtype that the user chose."""


Logits = TypeVar("Logits", bound="torch.Tensor | tuple[torch.Tensor, ...]")


def read_finite(
    model: QSiT, read: Callable[[Network], Logits], *, start: Network | None = None
) -> tuple[Logits, Network]:
    """``read(network)``, outside the caller's autocast, and the network that gave finite numbers.

    Args:
        read: from a network to logits, one tensor or several. Called again with the model's second network, in
            bfloat16, where float16 overflowed and the dtype was left to us: what it takes from the first is worthless
            then.
        start: the network to begin with; None is the model's own.

    Raises:
        NonFiniteError: NaN or infinity in a dtype that the user chose, or that no other dtype would cure.
    """
    network = start or model.network
    with model.arithmetic():
        found = read(network)
        if _finite(found):
            return found, network
        if network.dtype != torch.float16 or not model.automatic_dtype:
            raise NonFiniteError(_message(model, network.dtype))
        log.warning("float16 overflowed on %s: reading again in bfloat16", model.name)
        network = model.bfloat16_network()
        found = read(network)
        if not _finite(found):
            raise NonFiniteError(_message(model, network.dtype))
        return found, network


def _finite(found: torch.Tensor | tuple[torch.Tensor, ...]) -> bool:
    parts = (found,) if isinstance(found, torch.Tensor) else found
    return all(bool(torch.isfinite(part.detach()).all()) for part in parts)


def _message(model: QSiT, dtype: torch.dtype) -> str:
    if dtype == torch.float16:
        cure = "load it with dtype='bfloat16' or dtype='float32'"
    else:
        whose = "those of the adapter or its own" if model.adapter is not None else "its"
        cure = f"this dtype does not overflow, so {whose} weights are damaged: get the checkpoint again"
    return f"{model.name} ({model.folder}) gave logits that are not finite in {dtype}: {cure}"
