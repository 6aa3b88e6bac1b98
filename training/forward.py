"""The model's forward pass on a batch."""

from __future__ import annotations

from typing import Any

import torch

from qsit_plugin.engines.torch_engine import normalise
from qsit_plugin.tiling import Tiling

from .data.collator import Batch


def forward(model: Any, batch: Batch, tiling: Tiling) -> torch.Tensor:
    """(B, K, V) logits at the batch's places, by the model's own forward.

    No attention mask: texts are padded on the right and attention is causal, so the padding comes after everything that
    counts. With a mask, attention would leave its fast path and keep a (T, T) matrix. Logits at the image's tokens
    would be gigabytes, so they are computed where they are needed only.
    """
    return model(
        input_ids=batch["input_ids"],
        pixel_values=normalise(tiling, batch["tiles"]),
        image_sizes=batch["image_sizes"],
        logits_to_keep=batch["places"],
        use_cache=False,
    ).logits
