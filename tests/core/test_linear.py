"""oneDNN stands in for plain float32 layers on x86 and for nothing else."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from qsit_plugin.engines.linear import linear, linear_gelu


class Other(nn.Linear):
    """Stands for an adapter's or a quantized layer: its weight alone is not what it computes."""

    def forward(self, x):
        return super().forward(x) + 1.0


@pytest.fixture
def layer():
    torch.manual_seed(0)
    return nn.Linear(48, 96).requires_grad_(False)


@pytest.mark.parametrize("shape", [(1, 48), (7, 48), (8, 48), (3, 40, 48), (0, 48)])
@pytest.mark.parametrize("bias", [True, False])
def test_the_values_are_those_of_the_layer(shape, bias):
    layer = nn.Linear(48, 96, bias=bias).requires_grad_(False)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    assert linear(layer, x).shape == layer(x).shape
    assert torch.allclose(linear(layer, x), layer(x), atol=1e-5)
    assert torch.allclose(linear_gelu(layer, x), functional.gelu(layer(x), approximate="tanh"), atol=1e-5)


def test_a_layer_that_is_not_plain_is_called(layer):
    other = Other(48, 96).requires_grad_(False)
    x = torch.randn(20, 48)
    assert torch.equal(linear(other, x), other(x))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_number_formats_are_the_layers_own(layer, dtype):
    layer, x = layer.to(dtype), torch.randn(20, 48, dtype=dtype)
    assert torch.equal(linear(layer, x), layer(x))


def test_a_gradient_that_is_wanted_comes(layer):
    x = torch.randn(20, 48, requires_grad=True)
    linear_gelu(layer, linear(nn.Linear(48, 48), x)).sum().backward()
    assert x.grad is not None and x.grad.abs().max() > 0
