"""Attention by plain matrix products, in the number format it is given: what nano is trained with.

On a CPU the backward pass through the fused attention takes 42 % of the tower stage's time and half of the joint
stage's, where sequences are short. transformers' own plain path computes the softmax in float32 and is slower than the
fused one on the joint stage's lengths.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import AttentionInterface

NAME = "qsit_plain"


def attend(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """(B, heads, T, D) each -> (B, T, heads, D). ``attention_mask``: added to the products; none is causal where the
    module says so."""
    products = (query * (query.shape[-1] ** -0.5 if scaling is None else scaling)) @ key.transpose(-1, -2)
    if attention_mask is None and getattr(module, "is_causal", False):
        length = query.shape[2]
        hidden = torch.ones(length, length, dtype=torch.bool, device=query.device).triu(1)
        products = products.masked_fill(hidden, float("-inf"))
    elif attention_mask is not None:
        products = products + attention_mask.to(products.dtype)
    return (products.softmax(-1).to(value.dtype) @ value).transpose(1, 2).contiguous(), None


def use_plain_attention(model: Any) -> None:
    """Let a transformers model attend this way."""
    AttentionInterface.register(NAME, attend)
    model.set_attn_implementation(NAME)
