"""Linear layers by the faster of the two libraries that torch brings along: float32 on x86 processors goes to oneDNN.

By itself torch multiplies float32 matrices with MKL, which on an AMD processor reached less than half of oneDNN's speed
(figures in docs/performance.md). The operator is the one that torch.compile puts in place of a linear layer. Weights
are read as they are; nothing is copied or kept.
"""

from __future__ import annotations

import platform

import torch
from torch import nn
from torch.nn import functional

_FEW_ROWS = 8
"""Below, nothing is gained: reading the weights takes the time, and MKL has the shorter start."""

_ONEDNN = (
    platform.machine().lower() in ("x86_64", "amd64")
    and torch.backends.mkldnn.is_available()
    and hasattr(torch.ops.mkldnn, "_linear_pointwise")
)


def linear(layer: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """``layer(x)``. (..., K) -> (..., N); any layer that is not a plain ``nn.Linear`` is simply called."""
    if not _takes(layer, x):
        return layer(x)
    return torch.ops.mkldnn._linear_pointwise(x, layer.weight, layer.bias, "none", [], "")


def linear_gelu(layer: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """GELU (tanh form) of ``layer(x)``, in one pass over the result where oneDNN does it."""
    if not _takes(layer, x):
        return functional.gelu(layer(x), approximate="tanh")
    return torch.ops.mkldnn._linear_pointwise(x, layer.weight, layer.bias, "gelu", [], "tanh")


def _takes(layer: nn.Module, x: torch.Tensor) -> bool:
    """Whether oneDNN may stand in: its operator has no gradient, and subclasses (quantized weights) work otherwise."""
    return (
        _ONEDNN
        and type(layer) is nn.Linear
        and x.dtype == torch.float32 == layer.weight.dtype
        and x.device.type == "cpu" == layer.weight.device.type
        and x.numel() >= _FEW_ROWS * x.shape[-1]
        and not (torch.is_grad_enabled() and (x.requires_grad or layer.weight.requires_grad))
    )
