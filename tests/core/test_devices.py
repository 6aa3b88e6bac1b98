"""The choice of device and dtype: automatic ones follow the machine, explicit ones are never changed."""

import pytest
import torch

from qsit_plugin.engines.devices import SMALL, cpu_has_bfloat16, resolve_device, resolve_dtype

CPU = torch.device("cpu")


def test_an_explicit_device_is_taken_as_it_is():
    assert resolve_device("cpu") == CPU
    assert resolve_device(CPU) == CPU


def test_the_automatic_device_is_one_that_this_machine_has():
    device = resolve_device("auto")
    assert torch.zeros(1, device=device).device.type == device.type


def test_an_unknown_device_is_an_error_that_names_the_allowed_ones():
    with pytest.raises(ValueError, match="'gpu' is unknown; give auto, cpu, cuda"):
        resolve_device("gpu")


def test_a_device_that_this_machine_lacks_is_an_error():
    with pytest.raises(ValueError, match="is not here"):
        resolve_device(f"cuda:{torch.cuda.device_count()}")


@pytest.mark.parametrize("kind", ["cuda", "mps"])
def test_the_automatic_dtype_of_an_accelerator_is_float16(kind):
    assert resolve_dtype("auto", torch.device(kind), 16 * SMALL) == torch.float16


def test_the_automatic_dtype_of_small_weights_on_a_cpu_is_float32():
    assert resolve_dtype("auto", CPU, SMALL - 1) == torch.float32


def test_the_automatic_dtype_of_large_weights_on_a_cpu_follows_the_processor():
    expected = torch.bfloat16 if cpu_has_bfloat16() else torch.float32
    assert resolve_dtype("auto", CPU, SMALL) == expected


@pytest.mark.parametrize("name", ["float32", "float16", "bfloat16"])
def test_an_explicit_dtype_is_never_changed(name):
    assert resolve_dtype(name, CPU, 16 * SMALL) == getattr(torch, name)
    assert resolve_dtype(getattr(torch, name), torch.device("cuda"), 1) == getattr(torch, name)


@pytest.mark.parametrize("wrong", ["int8", "half", torch.float64])
def test_a_dtype_that_cannot_be_run_is_an_error_that_names_the_allowed_ones(wrong):
    with pytest.raises(ValueError, match="give auto, float32, float16, bfloat16"):
        resolve_dtype(wrong, CPU)
