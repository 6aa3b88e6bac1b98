"""The model of a run: going on from an adapter, a base in 4 bits, and how attention is computed."""

import importlib.util
import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.training.runs import RATINGS, SCALE, Data, require_training

require_training()

import qsit_plugin  # noqa: E402
from qsit_plugin.model import QSiT  # noqa: E402
from qsit_plugin.training import run as finetune  # noqa: E402
from qsit_plugin.training.config import ConfigError, RunConfig  # noqa: E402
from qsit_plugin.training.model import make_trainable, open_base  # noqa: E402
from qsit_plugin.training.parameters import part_of  # noqa: E402
from qsit_plugin.weights import WeightsError  # noqa: E402

LORA = {"method": "lora", "lora_dropout": 0.0, "lora_rank": 4, "learning_rate": 1e-2, "max_steps": 3}


def trained(config: RunConfig) -> tuple[Path, list[str]]:
    lines: list[str] = []
    return finetune.run(config, say=lines.append), lines


def score_loss(model: QSiT, tuning: Data) -> float:
    """Mean cross entropy of the level words against the soft labels of the pictures' ratings, in nats."""
    total = 0.0
    for mos, score in zip(RATINGS, model.score(tuning.pictures), strict=True):
        shares = zip(SCALE.soft(mos), score.probabilities.values(), strict=True)
        total -= sum(share * math.log(found) for share, found in shares)
    return total / len(RATINGS)


def opened(config: RunConfig) -> QSiT:
    """The model as a run has it before its first step."""
    checkpoint = open_base(config, bf16=config.precision == "bf16")
    make_trainable(config, checkpoint)
    checkpoint.model.eval()
    return QSiT(checkpoint)


@pytest.fixture(scope="module")
def adapter(tuning: Data, tmp_path_factory: pytest.TempPathFactory) -> Path:
    parts = ["language", "projector", "vision"]
    return trained(tuning.config(tmp_path_factory.mktemp("first"), **LORA, parts=parts))[0]


def further(tuning: Data, output: Path, start: Path, **changes: Any) -> RunConfig:
    settings: dict[str, Any] = {"method": "lora", "adapter": str(start), "learning_rate": 2e-3, "max_steps": 8}
    return tuning.config(output, **settings | changes)


# ---- going on from an adapter ----


def test_lora_from_an_adapter_starts_at_that_adapters_loss(tuning: Data, adapter: Path, tmp_path: Path) -> None:
    goal = score_loss(qsit_plugin.load(tuning.base, device="cpu", adapter=adapter), tuning)
    assert score_loss(opened(further(tuning, tmp_path, adapter)), tuning) == pytest.approx(goal, abs=1e-5)
    assert score_loss(qsit_plugin.load(tuning.base, device="cpu"), tuning) > goal + 0.05


def test_the_adapter_that_comes_of_it_is_another_with_the_same_settings_and_loads(tuning, adapter, tmp_path) -> None:
    result, _ = trained(further(tuning, tmp_path, adapter))
    first, second = (json.loads((folder / "adapter_config.json").read_text("utf-8")) for folder in (adapter, result))
    assert first == second
    before, after = (load_file(folder / "adapter_model.safetensors") for folder in (adapter, result))
    assert {part_of(name + ".") for name in before if not torch.equal(before[name], after[name])} == {
        "language",
        "projector",
        "vision",
    }
    goal = score_loss(qsit_plugin.load(tuning.base, device="cpu", adapter=adapter), tuning)
    assert score_loss(qsit_plugin.load(tuning.base, device="cpu", adapter=result), tuning) < goal


def test_the_profile_of_the_adapter_is_that_of_the_run(tuning: Data, adapter: Path, tmp_path: Path) -> None:
    shutil.copytree(adapter, tmp_path / "adapter")
    replace(tuning.profile, scope="ratings of mine").save(tmp_path / "adapter")
    assert opened(further(tuning, tmp_path, tmp_path / "adapter")).checkpoint.profile.scope == "ratings of mine"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lora_rank": 8}, "lora_rank is 8, but 4 in .*, which holds: take it out"),
        ({"lora_alpha": 8}, "lora_alpha is 8.0, but 32.0 in .*: take it out"),
        ({"lora_dropout": 0.1}, "lora_dropout is 0.1, but 0.0 in"),
        ({"parts": ["language"]}, r"the adapter reaches \['language', 'projector', 'vision'\] .* not \['language'\]"),
        ({"adapter": "absent"}, "adapter: absent holds no adapter .* give the folder that a run of lora wrote"),
    ],
)
def test_settings_that_differ_from_the_adapters_are_refused(tuning, adapter, tmp_path, changes, message) -> None:
    with pytest.raises(ConfigError, match=message):
        opened(further(tuning, tmp_path, adapter, **changes))


def test_settings_that_are_the_adapters_may_be_given(tuning: Data, adapter: Path, tmp_path: Path) -> None:
    config = further(tuning, tmp_path, adapter, lora_rank=4, lora_alpha=32, parts=["vision", "projector", "language"])
    goal = score_loss(opened(further(tuning, tmp_path, adapter)), tuning)
    assert score_loss(opened(config), tuning) == pytest.approx(goal, abs=1e-6)


def test_an_adapter_of_another_base_is_refused_and_one_of_a_moved_base_is_not(tuning, adapter, tmp_path) -> None:
    other = shutil.copytree(tuning.base, tmp_path / "other")
    with pytest.raises(ConfigError, match=f"is of {tuning.base}, and base is {other}: give base: {tuning.base}"):
        opened(further(tuning, tmp_path, adapter, base=str(other)))
    moved = shutil.copytree(tuning.base, tmp_path / "elsewhere" / "base")
    opened(further(tuning, tmp_path, adapter, base=str(moved)))


def test_an_adapter_of_another_shape_is_refused(tuning: Data, adapter: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(adapter, tmp_path / "adapter")
    tensors = load_file(folder / "adapter_model.safetensors")
    name = next(name for name in tensors if "lora_A" in name)
    tensors[name] = torch.cat([tensors[name], tensors[name]], dim=1)
    save_file(tensors, folder / "adapter_model.safetensors")
    with pytest.raises(
        WeightsError, match="does not fit this checkpoint .* use the base model that its adapter_config"
    ):
        opened(further(tuning, tmp_path, folder))


# ---- a base in 4 bits ----

needs_bitsandbytes = pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is None, reason="4-bit weights need bitsandbytes"
)


@needs_bitsandbytes
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_lora_on_a_base_in_4_bits_learns_and_its_adapter_loads_on_the_full_base(tuning, tmp_path, precision) -> None:
    settings = LORA | {"load_in_4bit": True, "precision": precision, "gradient_checkpointing": True, "max_steps": 8}
    adapter, lines = trained(tuning.config(tmp_path, **settings, log_every=1))
    losses = [float(line.split("loss ")[1].split()[0]) for line in lines if line.startswith("step ")]
    assert len(losses) == 8 and losses[-1] < losses[0]
    before = score_loss(qsit_plugin.load(tuning.base, device="cpu"), tuning)
    assert score_loss(qsit_plugin.load(tuning.base, device="cpu", adapter=adapter), tuning) < before - 0.05


@needs_bitsandbytes
def test_in_4_bits_are_the_language_models_matrices_and_all_else_is_float32(tuning: Data, tmp_path: Path) -> None:
    config = tuning.config(tmp_path, **LORA | {"load_in_4bit": True, "precision": "bf16"})
    model = opened(config).checkpoint.model
    assert {type(module).__name__ for module in model.modules() if hasattr(module, "lora_A")} == {"Linear4bit"}
    named = dict(model.named_parameters())
    packed = {name for name, weight in named.items() if weight.dtype == torch.uint8}
    assert packed and all("language_model.layers" in name and "base_layer" in name for name in packed)
    assert {weight.dtype for name, weight in named.items() if name not in packed and "bias" not in name} == {
        torch.float32
    }
    assert {name.split(".")[-3] for name, weight in named.items() if weight.requires_grad} == {"lora_A", "lora_B"}


@needs_bitsandbytes
def test_a_model_in_4_bits_trains_on_after_it_was_looked_at(tuning: Data, tmp_path: Path) -> None:
    held = str(tuning.folder / "rows.jsonl")
    settings = LORA | {"load_in_4bit": True, "max_steps": 2, "precision": "bf16"}
    plain, _ = trained(tuning.config(tmp_path / "a", **settings))
    watched, _ = trained(tuning.config(tmp_path / "b", **settings, validation=held, validate_every=1))
    expected, found = (load_file(folder / "adapter_model.safetensors") for folder in (plain, watched))
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_without_bitsandbytes_a_run_in_4_bits_names_the_cure(tuning, tmp_path, monkeypatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "bitsandbytes" else found(name))
    with pytest.raises(ConfigError, match="load_in_4bit needs bitsandbytes: run pip install bitsandbytes, or take"):
        open_base(tuning.config(tmp_path, **LORA, load_in_4bit=True), bf16=False)


# ---- attention ----


def test_eager_and_sdpa_give_the_same_first_loss(tuning: Data, tmp_path: Path) -> None:
    models = [opened(tuning.config(tmp_path, attn_implementation=name)) for name in ("eager", "sdpa", None)]
    assert [model.checkpoint.model.config._attn_implementation for model in models[:2]] == ["eager", "sdpa"]
    eager, sdpa, chosen = (score_loss(model, tuning) for model in models)
    assert eager == pytest.approx(sdpa, abs=1e-5)
    assert chosen == pytest.approx(sdpa, abs=1e-5)


@pytest.mark.skipif(importlib.util.find_spec("flash_attn") is not None, reason="flash-attn is installed")
def test_flash_attention_without_its_package_names_the_cure(tuning: Data, tmp_path: Path) -> None:
    config = tuning.config(tmp_path, attn_implementation="flash_attention_2", device="auto", precision="bf16")
    with pytest.raises(ConfigError, match="needs the package flash-attn and CUDA: run pip install flash-attn, or give"):
        open_base(config, bf16=True)
