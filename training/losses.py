"""What is minimised: cross entropy of the answers, with hard or soft levels, and the order of rated images.

Soft levels are those of DeQA-Score (arXiv 2501.11561): at the level word the target is not one token but five
probabilities, over the whole vocabulary. The order is its fidelity loss, of Thurstone's model: the probability that
image A is rated above B, by the levels that are predicted and by those of the labels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F

from .data.collator import IGNORED

EPSILON = 1e-6
"""Keeps the square roots of the fidelity loss from an infinite gradient."""


def token_losses(
    logits: torch.Tensor, batch: Mapping[str, torch.Tensor], level_ids: Sequence[int], *, soft: bool
) -> torch.Tensor:
    """Float32 (B, K) cross entropy at every place; 0 where nothing is learned.

    ``logits``: (B, K, V). ``soft``: use ``level_probs`` at the level words of the rows that have them.
    """
    logits = logits.float()
    flat = F.cross_entropy(logits.flatten(0, 1), batch["targets"].flatten(), ignore_index=IGNORED, reduction="none")
    losses = flat.view(batch["targets"].shape)
    if soft and len(batch["level_row"]):
        row, place, target = batch["level_row"], batch["level_place"], batch["level_probs"]
        hard, known = losses[row, place], target.isfinite().all(-1)
        predicted = logits[row, place].log_softmax(-1)[:, list(level_ids)]
        mixed = torch.where(known, -(target.nan_to_num() * predicted).sum(-1), hard)
        losses = losses.index_put((row, place), mixed)
    return losses


def rank_losses(logits: torch.Tensor, batch: Mapping[str, torch.Tensor], level_ids: Sequence[int]) -> torch.Tensor:
    """Float32 (P,) fidelity losses in [0, 1] of the batch's pairs of ratings."""
    return fidelity_losses(level_shares(logits, batch, level_ids), batch["level_probs"].nan_to_num(), batch["pairs"])


def level_shares(logits: torch.Tensor, batch: Mapping[str, torch.Tensor], level_ids: Sequence[int]) -> torch.Tensor:
    """Float32 (L, 5): what the model says at the level words of the batch's ratings, as shares of the five."""
    return logits[batch["level_row"], batch["level_place"]].float()[:, list(level_ids)].softmax(-1)


def fidelity_losses(predicted: torch.Tensor, labels: torch.Tensor, pairs: torch.Tensor) -> torch.Tensor:
    """(P,) in [0, 1], of predicted and labelled level probabilities (L, 5) each, and pairs (P, 2) of numbers in L."""
    wanted, found = _probability_above(labels, pairs), _probability_above(predicted, pairs)
    kept = torch.sqrt(wanted * found + EPSILON) + torch.sqrt((1 - wanted) * (1 - found) + EPSILON)
    return 1 - kept


def _probability_above(levels: torch.Tensor, pairs: torch.Tensor) -> torch.Tensor:
    """(L, 5) level probabilities, excellent to bad -> (P,) probability that a pair's first image is rated higher."""
    steps = torch.arange(4, -1, -1, device=levels.device, dtype=levels.dtype)
    mean = levels @ steps
    variance = (levels * (steps - mean[:, None]) ** 2).sum(-1)
    first, second = pairs.unbind(-1)
    distance = (mean[first] - mean[second]) / torch.sqrt(variance[first] + variance[second] + EPSILON)
    return 0.5 * (1 + torch.erf(distance / math.sqrt(2)))


def total_loss(
    losses: torch.Tensor, batch: Mapping[str, torch.Tensor], amounts: torch.Tensor, normalize: str
) -> torch.Tensor:
    """This batch's part of the loss of a step: the parts of all batches and devices add up to it.

    ``amounts``: the sums of the ``amounts`` of all batches of the step. With "token" every token counts the same, with
    "sample" every sample, with "task" each task that occurs, and within it every sample.
    """
    by_row = (losses * batch["weights"]).sum(-1)
    tasks = amounts[:2]
    if normalize == "task":
        return (by_row / (tasks[batch["task"]] * (tasks > 0).sum())).sum()
    return by_row.sum() / tasks.sum()
