"""8-bit and 4-bit weights for the language model, by bitsandbytes. They change scores, so they are opt-in and say so.

Only the linear layers of the language model are replaced: they hold nearly all weights of the large checkpoints. The
vision tower, the projector and the level head stay as they are, since their errors would go straight into the score.
"""

from __future__ import annotations

import logging
import threading
from functools import lru_cache
from typing import Any

from torch import nn

KINDS = ("8bit", "4bit")
"""LLM.int8() with outliers in 16 bits, and 4-bit NormalFloat (QLoRA)."""

OUTLIERS = 6.0
"""Activations beyond this are multiplied in 16 bits: the threshold of LLM.int8()."""


def require_bitsandbytes(kind: str) -> Any:
    """The library, before anything is downloaded or opened.

    Raises:
        ValueError: no such kind.
        ModuleNotFoundError: bitsandbytes is not installed.
    """
    if kind not in KINDS:
        raise ValueError(f"quantization {kind!r} is unknown; give {' or '.join(KINDS)}, or None for full weights")
    try:
        import bitsandbytes
    except ModuleNotFoundError as error:
        if error.name != "bitsandbytes":
            raise
        raise ModuleNotFoundError(
            f"{kind} weights need bitsandbytes, which is not installed: pip install bitsandbytes, or take the "
            "checkpoint without quantization",
            name="bitsandbytes",
        ) from None
    return bitsandbytes


def quantize(model: Any, kind: str) -> None:
    """Replace the language model's linear layers in place. They become integers when the model is moved to its device.

    ``model``: a LlavaOnevisionForConditionalGeneration in its 16- or 32-bit dtype. Raises as require_bitsandbytes.
    """
    library = require_bitsandbytes(kind)
    for module in model.model.language_model.layers.modules():
        for name, child in module.named_children():
            if type(child) is nn.Linear:
                setattr(module, name, _replacement(library.nn, child, kind))


def _replacement(layers: Any, old: nn.Linear, kind: str) -> nn.Module:
    """The same weights, still in floats, in a layer that quantizes them on its way to a device."""
    bias, dtype = old.bias is not None, old.weight.dtype
    if kind == "8bit":
        new = _quiet_8bit(layers.Linear8bitLt)(
            old.in_features, old.out_features, bias, has_fp16_weights=False, threshold=OUTLIERS, device="meta"
        )
        new.weight = layers.Int8Params(old.weight.data, requires_grad=False, has_fp16_weights=False)
    else:
        new = layers.Linear4bit(
            old.in_features, old.out_features, bias, compute_dtype=dtype, quant_type="nf4", device="meta"
        )
        new.weight = layers.Params4bit(old.weight.data, requires_grad=False, quant_type="nf4", module=new)
    new.bias = old.bias if old.bias is None else nn.Parameter(old.bias.data, requires_grad=False)
    return new


class _Known(logging.Filter):
    """Keeps back bitsandbytes' warning that inputs are cast to float16, for the layers of this package alone.

    It comes from every layer at every score where the model's dtype is another, as on a CPU, and ``mode`` says "8bit".
    """

    def __init__(self) -> None:
        super().__init__()
        self.ours = threading.local()

    def filter(self, record: logging.LogRecord) -> bool:
        return not (getattr(self.ours, "running", False) and "inputs will be cast from" in str(record.msg))


@lru_cache(maxsize=1)
def _quiet_8bit(base: type[Any]) -> type[Any]:
    """bitsandbytes' 8-bit layer without that warning."""
    known = _Known()
    logging.getLogger("bitsandbytes.autograd._functions").addFilter(known)

    class Linear8bit(base):
        def forward(self, x: Any) -> Any:
            known.ours.running = True
            try:
                return super().forward(x)
            finally:
                known.ours.running = False

    return Linear8bit
