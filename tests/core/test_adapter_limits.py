"""Adapters whose settings or tensors are damaged or hostile: a WeightsError, and no endless regular expression."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from qsit_plugin.checkpoint import open_checkpoint
from qsit_plugin.weights import WeightsError
from tests.tiny import tiny_checkpoint

peft = pytest.importorskip("peft", reason="adapters need peft")
PATTERN = r".*language_model.*\.(q|v)_proj"
SLOW = r"(((\w|\.)+)+)+!"  # doubles its steps with every letter of a module's name


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny_checkpoint(tmp_path_factory.mktemp("base") / "tiny", official=False)


def opened(folder, **more):
    return open_checkpoint(folder, device=torch.device("cpu"), dtype=torch.float32, **more).model


@pytest.fixture
def adapter(base, tmp_path):
    wrapped = peft.get_peft_model(
        opened(base), peft.LoraConfig(r=2, target_modules=PATTERN, init_lora_weights=False, lora_alpha=4)
    )
    wrapped.save_pretrained(tmp_path)
    return tmp_path, wrapped.merge_and_unload().state_dict()


def edit(folder, **values):
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **values}), encoding="utf-8")


@pytest.mark.parametrize("pattern", [PATTERN, SLOW, ["q_proj", "v_proj"]])
def test_an_adapter_is_merged_whatever_its_expression_for_modules(base, adapter, pattern):
    folder, expected = adapter
    if isinstance(pattern, list):  # names: only in the language model, as the tensors are
        pattern = [f"language_model.layers.{i}.self_attn.{name}" for i in range(2) for name in pattern]
    edit(folder, target_modules=pattern)
    merged = opened(base, adapter=folder).state_dict()
    assert merged.keys() == expected.keys()
    assert all(torch.allclose(merged[name], expected[name], atol=1e-6) for name in expected)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"lora_alpha": 1e30}, "lora_alpha .* 1000 times the rank 2"),
        ({"lora_alpha": "16"}, "lora_alpha"),
        ({"alpha_pattern": {"q_proj": 1e30}}, "alpha_pattern"),
        ({"alpha_pattern": {SLOW: 4}}, "alpha_pattern must hold plain names"),
        ({"rank_pattern": {SLOW: 2}}, "rank_pattern must hold plain names"),
        ({"modules_to_save": [SLOW]}, "modules_to_save must hold plain names"),
        ({"target_modules": [SLOW]}, "target_modules must hold plain names"),
        ({"target_modules": 5}, "target_modules must hold plain names"),
        ({"target_modules": ["q_proj"], "exclude_modules": SLOW}, "exclude_modules is not read"),
        ({"r": 10**9}, "r and rank_pattern must be ranks from 1 to that of the tensors, 2"),
        ({"r": 0}, "r and rank_pattern"),
        ({"layer_replication": [[0, 10**9]]}, "layer_replication is not known"),
        ({"megatron_config": {}, "megatron_core": "antigravity", "peft_type": "IA3"}, "peft_type must be LORA"),
    ],
)
def test_an_adapter_config_that_cannot_be_used_is_an_error_that_names_the_setting(base, adapter, values, message):
    edit(adapter[0], **values)
    with pytest.raises(WeightsError, match=f"adapter_config.json.*{message}"):
        opened(base, adapter=adapter[0])


@pytest.mark.parametrize("text", ["[]", "[" * 100_000 + "]" * 100_000, "\0"])
def test_an_adapter_config_that_is_no_object_is_an_error_that_names_it(base, adapter, text):
    (adapter[0] / "adapter_config.json").write_text(text, encoding="utf-8")
    with pytest.raises(WeightsError, match="adapter_config.json"):
        opened(base, adapter=adapter[0])


@pytest.mark.parametrize("damage", [lambda t: t * float("nan"), lambda t: t.to(torch.int8)], ids=["nan", "int8"])
def test_an_adapter_whose_tensors_are_damaged_is_an_error(base, adapter, damage):
    path = adapter[0] / "adapter_model.safetensors"
    weights = load_file(path)
    name = sorted(weights)[0]
    save_file({**weights, name: damage(weights[name])}, path, metadata={"format": "pt"})
    with pytest.raises(WeightsError, match="adapter_model.safetensors is damaged"):
        opened(base, adapter=adapter[0])


def test_a_truncated_adapter_is_an_error(base, adapter):
    path = adapter[0] / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(WeightsError, match="adapter_model.safetensors is broken"):
        opened(base, adapter=adapter[0])
