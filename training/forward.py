"""One batch through the model: logits where they are needed, of rows without images, with one and with several."""

from __future__ import annotations

from typing import Any

import torch

from qsit_plugin.engines.torch_engine import normalise
from qsit_plugin.tiling import Tiling

from .data.collator import Batch
from .parameters import part_of


def forward(model: Any, batch: Batch, tiling: Tiling) -> torch.Tensor:
    """(B, K, V) logits at the batch's places, by the model's own forward.

    No attention mask: texts are padded on the right and attention is causal, so the padding comes after everything that
    counts. With a mask, attention would leave its fast path and keep a (T, T) matrix. Logits at the image's tokens
    would be gigabytes, so they are computed where they are needed only.
    """
    if not len(batch["tiles"]) and any(
        weight.requires_grad and part_of(name) != "language" for name, weight in model.named_parameters()
    ):
        batch = _with_blank_images(batch, tiling, getattr(model, "module", model).config.image_token_id)
    vision = {
        "pixel_values": normalise(tiling, batch["tiles"]),
        "image_sizes": batch["image_sizes"],
        "batch_num_images": batch["images"].tolist(),  # the images of a row with several are one tile each
    }
    return model(
        input_ids=batch["input_ids"],
        logits_to_keep=batch["places"],
        use_cache=False,
        **(vision if len(batch["tiles"]) else {}),
    ).logits


def _with_blank_images(batch: Batch, tiling: Tiling, image_token_id: int) -> Batch:
    """A batch of text alone with two blank images behind the text of its first row, where no logit sees them.

    Without them a trained vision tower and projector would get no gradient, for which DDP (that does not look for
    unused parameters) and the other devices would wait; now it is exactly 0. They pass through the model's own forward,
    as autocast and FSDP need. Two, because each is then one tile.
    """
    ids = batch["input_ids"]
    behind = ids[:, :1].repeat(1, 2 * (tiling.side**2 + 1))
    behind[0] = image_token_id
    images = torch.zeros_like(batch["images"])
    images[0] = 2
    return batch | {
        "input_ids": torch.cat([ids, behind], 1),
        "tiles": batch["tiles"].new_zeros(2, 3, tiling.tile, tiling.tile),
        "image_sizes": batch["image_sizes"].new_full((2, 2), tiling.tile),
        "images": images,
    }
