"""Which weights are trained, and how fast each: the parts of the model, and the optimizer's groups."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch

_PLACES = (
    ("vision_tower.", "vision"),
    ("multi_modal_projector.", "projector"),
    ("image_newline", "projector"),
    ("language_model.", "language"),
    ("lm_head.", "language"),
)


def part_of(name: str) -> str:
    """The part that a weight belongs to: language, projector or vision. Raises ValueError for any other weight."""
    found = [part for place, part in _PLACES if place in name]
    if len(found) != 1:
        raise ValueError(f"weight {name!r} belongs to {found or 'no part'} of LLaVA-OneVision, not to one")
    return found[0]


def is_read(name: str, vision_feature_layer: Any) -> bool:
    """Whether a weight of the tower has an influence on the answers.

    The projector reads the encoder's output before ``post_layernorm``: what comes after it is never trained, and DDP
    would wait for gradients that never come.
    """
    return not (
        vision_feature_layer == -1 and part_of(name) == "vision" and ("post_layernorm" in name or ".head." in name)
    )


def set_trainable(model: Any, parts: Iterable[str]) -> None:
    """Make the weights of these parts trainable, and no others."""
    layer = model.config.vision_feature_layer
    for name, weight in model.named_parameters():
        weight.requires_grad_(part_of(name) in parts and is_read(name, layer))


def parameter_groups(model: torch.nn.Module, rates: Mapping[str, float], weight_decay: float) -> list[dict[str, Any]]:
    """The optimizer's groups, named; every trainable weight is in exactly one.

    Matrices decay, vectors (norms, biases) do not. Raises ValueError where a weight would be in none or in two.
    """
    groups: dict[tuple[str, bool], dict[str, Any]] = {}
    for name, weight in model.named_parameters():
        if not weight.requires_grad:
            continue
        part, decays = part_of(name), weight.ndim > 1 and weight_decay > 0
        group = groups.setdefault(
            (part, decays),
            {
                "name": part + (", decaying" if decays else ""),
                "lr": rates[part],
                "weight_decay": weight_decay * decays,
                "params": [],
            },
        )
        group["params"].append(weight)
    check_groups(model, groups.values())
    return list(groups.values())


def check_groups(model: torch.nn.Module, groups: Iterable[Mapping[str, Any]]) -> None:
    """Raise ValueError unless every trainable weight is in exactly one group, and nothing else is."""
    found = [id(weight) for group in groups for weight in group["params"]]
    wanted = {id(weight): name for name, weight in model.named_parameters() if weight.requires_grad}
    twice = len(found) - len(set(found))
    lost = [name for number, name in wanted.items() if number not in set(found)]
    strange = len(set(found) - wanted.keys())
    if twice or lost or strange or not found:
        raise ValueError(
            f"every trainable weight must be in one learning-rate group: {twice} are in several, {strange} are not "
            f"trainable, in none are {lost[:5] or 'none'}"
        )


def group_lines(groups: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    for group in groups:
        count = sum(weight.numel() for weight in group["params"])
        yield (
            f"{group['name']:<20}{count:>15,} weights in {len(group['params']):,} tensors, learning rate "
            f"{group['lr']:g}, decay {group['weight_decay']:g}"
        )
