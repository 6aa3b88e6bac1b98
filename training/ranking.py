"""Which ratings are compared with one another by ``level_loss: soft+rank``, on one device and over several.

Compared are two ratings of one source that both have soft labels, in one batch of all devices: ratings of two sources
were given on different scales. Batches that ``gradient_accumulation`` adds up are not compared with one another, as the
activations of one are gone before the next is there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch

from .config import ConfigError, RunConfig
from .data.collator import NO_SOURCE, source_number
from .data.mixture import Mixture
from .losses import fidelity_losses

LARGEST = 256
"""Up to which batch_size a cure is looked for."""


def pair_count(sources: torch.Tensor) -> torch.Tensor:
    """Source numbers (..., L) -> how many pairs among the L are of one source, int64 (...)."""
    same = (sources[..., :, None] == sources[..., None, :]) & (sources >= 0)[..., :, None]
    return same.triu(diagonal=1).sum((-1, -2))


def padded_sources(batches: Sequence[Mapping[str, torch.Tensor]], rows: int) -> torch.Tensor:
    """The ``level_source`` of several batches of at most ``rows`` rows, int64 (batches, rows)."""
    found = torch.full((len(batches), rows), NO_SOURCE)
    for line, batch in zip(found, batches, strict=True):
        line[: len(batch["level_source"])] = batch["level_source"]
    return found


def rank_part(
    predicted: torch.Tensor,
    batch: Mapping[str, torch.Tensor],
    *,
    rows: int,
    place: int,
    gather: Callable[[torch.Tensor], torch.Tensor],
) -> torch.Tensor:
    """This device's part of the sum of the fidelity losses of all pairs of a batch of all devices.

    The parts of all devices add up to the sum, and their gradients to its gradient: a pair of two devices counts half
    on each, and each has the gradient of its own member, with the other as a constant.

    Args:
        predicted: (L, 5) level probabilities of this device's ratings. ``batch``: this device's.
        rows: of a batch on one device, at most. ``place``: number of this device.
        gather: (n, ...) of this device -> (devices * n, ...) of all, in their order.
    """
    count, begin = len(predicted), place * rows
    own = predicted.new_zeros(rows, 10)
    own[:count, :5], own[:count, 5:] = predicted.detach(), batch["level_probs"].nan_to_num()
    everyone = gather(own)
    sources = gather(padded_sources([batch], rows)[0].to(predicted.device))
    levels = everyone[:, :5].clone()
    levels[begin : begin + count] = predicted
    mine = torch.zeros_like(sources, dtype=torch.bool)
    mine[begin : begin + count] = True
    pairs = torch.combinations(torch.arange(len(sources), device=sources.device))
    first, second = pairs.unbind(-1)
    compared = (sources[first] == sources[second]) & (sources[first] >= 0) & (mine[first] | mine[second])
    first, second = first[compared], second[compared]
    losses = fidelity_losses(levels, everyone[:, 5:], torch.stack([first, second], -1))
    return (losses - 0.5 * losses.detach() * (mine[first] ^ mine[second])).sum()


# ---- before a run ----


def planned_pairs(mixture: Mixture, config: RunConfig, devices: int, batch_size: int | None = None) -> np.ndarray:
    """How many pairs each batch of all devices has in the first epoch, int64 (batches,)."""
    size = batch_size or config.batch_size
    numbers = np.array([source_number(row) for row in mixture.rows()])
    options = {"count": config.rows_per_epoch, "shares": config.shares, "world_size": devices}
    orders = [numbers[list(mixture.sampler(rank=rank, **options))] for rank in range(devices)]
    found = []
    for begin in range(0, len(orders[0]), size):
        together = np.concatenate([order[begin : begin + size] for order in orders])
        counts = np.unique(together[together >= 0], return_counts=True)[1]
        found.append(int((counts * (counts - 1) // 2).sum()))
    return np.array(found)


def check_pairs(mixture: Mixture, config: RunConfig, devices: int) -> str:
    """A line on the pairs of a run with soft+rank.

    Raises ConfigError where the first epoch has ratings to compare but never two of them in one batch: the run would be
    one of level_loss: soft.
    """
    found = planned_pairs(mixture, config, devices)
    if found.any():
        empty = np.mean(found == 0)
        without = f", none in {empty:.0%} of the batches" if empty else ""
        return f"soft+rank: {found.mean():.1f} pairs of ratings in a batch, on average{without}"
    size = config.batch_size
    while size < min(len(found) * config.batch_size, LARGEST):
        size *= 2
        if planned_pairs(mixture, config, devices, size).any():
            raise ConfigError(
                "level_loss: soft+rank learns from two ratings of one source in a batch, and with batch_size "
                f"{config.batch_size} on {devices} device{'s' * (devices > 1)} none of the {len(found):,} batches of "
                "an epoch has two (batches that gradient_accumulation adds up are not compared): give "
                f"batch_size: {size} with less gradient_accumulation, or level_loss: soft"
            )
    return "soft+rank: no two ratings of one source with level_probs can be compared, so none is"
