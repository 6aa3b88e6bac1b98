"""Pictures for tests, and what they put around our nodes: sources that give, and sinks that keep what arrives."""

from __future__ import annotations

from typing import Any

import torch

ARRIVED: dict[str, list[Any]] = {}
"""What each Keep node got, by its label."""
RAN: list[str] = []
"""Labels of the sources that ran."""
IMAGES: dict[str, Any] = {}
"""What a source gives, by label."""


def keep(source: list[Any], label: str) -> dict[str, Any]:
    return {"class_type": "Test_Keep", "inputs": {"value": source, "label": label}}


def give(label: str, value: Any) -> dict[str, Any]:
    IMAGES[label] = value
    return {"class_type": "Test_Give", "inputs": {"label": label}}


def photo(seed: int = 0, size: tuple[int, int] = (96, 128), blur: bool = False) -> torch.Tensor:
    """A [H, W, 3] picture with edges and texture; the blurred one is the same picture out of focus."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(3, size[0] // 8, size[1] // 8, generator=generator)
    big = torch.nn.functional.interpolate(coarse[None], size=size, mode="nearest")
    if blur:
        big = torch.nn.functional.avg_pool2d(big, 15, stride=1, padding=7)
    return big[0].permute(1, 2, 0).contiguous()


def batch(*pictures: torch.Tensor) -> torch.Tensor:
    return torch.stack(list(pictures))
