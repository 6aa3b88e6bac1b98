"""The projector alone: every token's features are projected onto a target of the stage that asks for it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from PIL import Image

from qsit_plugin.engines.torch_engine import normalise

from ..synthetic.photos import HARD
from .language import Learner
from .loop import log_means
from .optimizers import cosine
from .tower import Pairs

Target = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""uint8 views (N, S, S, 3), and the same as the engine takes them (N, 3, S, S) -> (N, tokens, width)."""


def fit_projector(
    made: Learner, images: Sequence[Image.Image], target: Target, *, steps: int, seed: int, rate: float, warmup: int
) -> None:
    """Minutes long, so without a state. It logs the share of the target's variance that is not explained yet."""
    projector, engine = made.model.model.multi_modal_projector, made.engine
    optimizer = torch.optim.AdamW(projector.parameters(), weight_decay=0.0)
    print("projector:", flush=True)
    log, begun = log_means(steps, 50, "{:.1f} steps/s", keep=0.95), time.monotonic()
    for step, batch in enumerate(Pairs(list(images), 64, seed, HARD).loader(0, steps)):
        optimizer.param_groups[0]["lr"] = rate * cosine(step, steps, warmup)
        with torch.no_grad():
            pixels = normalise(engine.tiling, batch.pixels.permute(0, 3, 1, 2))
            features, wanted = engine.features(pixels), target(batch.pixels, pixels)
        loss = F.mse_loss(projector(features), wanted) / wanted.var()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        log(step + 1, {"unexplained": loss.item()}, (step + 1) / (time.monotonic() - begun))
