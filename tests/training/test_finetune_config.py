"""The settings of a run: what is read, and what stops it with which words."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest

yaml = pytest.importorskip("yaml", reason="settings are YAML")
pytest.importorskip("pydantic", reason="pydantic checks the settings")

from qsit_plugin.training.balance.settings import read_settings  # noqa: E402
from qsit_plugin.training.config import ConfigError, RunConfig, Tracker, read_config  # noqa: E402

CONFIGS = Path(__file__).resolve().parents[2] / "training" / "configs"
NEEDED = {"base": "qsit-nano", "data": "rows.jsonl", "images": ".", "output": "out"}


def written(folder: Path, **settings) -> Path:
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(NEEDED | settings), encoding="utf-8")
    return path


def test_paths_are_relative_to_the_file_and_names_stay_names(tmp_path: Path) -> None:
    config = read_config(written(tmp_path, profile="training", validation="held.jsonl"))
    assert (config.data, config.images) == (str(tmp_path / "rows.jsonl"), str(tmp_path))
    assert config.validation == str(tmp_path / "held.jsonl")
    assert (config.base, config.profile) == ("qsit-nano", "training")
    (tmp_path / "mine").mkdir()
    assert read_config(written(tmp_path, base="mine")).base == str(tmp_path / "mine")


def test_1e_5_is_a_number_though_yaml_takes_it_for_a_text(tmp_path: Path) -> None:
    path = written(tmp_path)
    path.write_text(path.read_text(encoding="utf-8") + "learning_rate: 1e-5\n", encoding="utf-8")
    assert read_config(path).rates() == {"language": 1e-5, "projector": 1e-5, "vision": pytest.approx(2e-6)}


def test_settings_on_the_command_line_win_over_the_file(tmp_path: Path) -> None:
    config = read_config(written(tmp_path, epochs=3), ["epochs=5", "parts=[language, vision]", "shares={a: 1, b: 2}"])
    assert (config.epochs, config.parts, config.shares) == (5, ("language", "vision"), {"a": 1.0, "b": 2.0})


def test_what_is_written_back_reads_the_same(tmp_path: Path) -> None:
    config = read_config(written(tmp_path, parts=["vision"], learning_rate=0.5, method="full"))
    (tmp_path / "again.yaml").write_text(yaml.safe_dump(config.to_dict()), encoding="utf-8")
    assert read_config(tmp_path / "again.yaml") == config


@pytest.mark.parametrize("name", ["lora.yaml", "full.yaml"])
def test_the_shipped_examples_are_valid(name: str) -> None:
    config = read_config(CONFIGS / name)
    assert config.method == name.removesuffix(".yaml")


def test_the_shipped_example_of_a_search_is_valid_and_its_run_is_shipped() -> None:
    settings = read_settings(CONFIGS / "balance.yaml")
    assert read_config(settings.run).data == str(CONFIGS / "mixture.yaml")


@pytest.mark.parametrize("name", ["ddp.yaml", "fsdp.yaml"])
def test_accelerate_reads_the_shipped_launch_files(name: str) -> None:
    config_args = pytest.importorskip("accelerate.commands.config.config_args", reason="accelerate is optional")
    assert config_args.load_config_from_file(str(CONFIGS / name)).num_processes >= 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"learning_rat": 1}, r"unknown setting 'learning_rat' \(did you mean learning_rate\?\); there are base, data"),
        ({"base": None}, "lacks base: add them"),
        ({"method": "qlora"}, "method is 'qlora': give one of lora, full"),
        ({"level_loss": "rank"}, "level_loss is 'rank': give one of hard, soft, soft\\+rank"),
        ({"batch_size": 0}, "batch_size is 0: it must be from 1 to 65536"),
        ({"batch_size": 1.5}, "batch_size is 1.5: it must be a whole number"),
        ({"batch_size": True}, "batch_size is True: it must be a whole number"),
        ({"tensorboard": "yes please"}, "tensorboard is 'yes please': it must be true or false"),
        ({"learning_rate": "fast"}, "learning_rate is 'fast': it must be a number"),
        ({"learning_rate": 0}, "learning_rate is 0: it must be above 0"),
        ({"learning_rate": float("nan")}, "learning_rate is nan: it must be from 0 to 1"),
        ({"epochs": float("inf")}, "epochs is inf: it must be a whole number"),
        ({"parts": ["head"]}, r"parts is \['head'\]: give one or more of language, projector, vision, each once"),
        ({"parts": []}, r"parts is \[\]: give one or more"),
        ({"shares": [1, 2]}, "shares is .*: it must be names with numbers"),
        ({"method": "full", "result": "adapter"}, "full fine-tuning has none"),
        ({"method": "full", "adapter": "a"}, "adapter is for method: lora, and this is full: give lora, or"),
        ({"method": "full", "load_in_4bit": True}, "load_in_4bit is for method: lora, and this is full"),
        ({"load_in_4bit": True, "result": "merged"}, "load_in_4bit goes with result: adapter: merging would keep the"),
        ({"attn_implementation": "flash"}, "attn_implementation is 'flash': give one of eager, sdpa, flash"),
        ({"attn_implementation": "flash_attention_2", "device": "cpu"}, "needs CUDA and bf16, and device is cpu: give"),
        ({"early_stopping": 2}, "early_stopping needs validation, a file of rows: give it, or take early_stopping out"),
        ({"max_steps": 10**400}, "max_steps is 1000.*: it must be from 1 to 1e\\+09"),
        ({"early_stopping": 0}, "early_stopping is 0: it must be a whole number from 1 up"),
        ({"report_to": ["wand"]}, r"report_to is \['wand'\]: give some of tensorboard, wandb, .*, each once"),
        ({"report_to": ["wandb", "wandb"]}, "report_to is .*: give some of tensorboard, wandb"),
        ({"skip_damaged": "no"}, "skip_damaged is 'no': it must be true or false"),
        ({"epochs": 0, "batch_size": 0}, "epochs is 0: it must be from 1 to 1e\\+06; batch_size is 0: it must be"),
        ({"result": "adapter", "result_dtype": "float32"}, "result_dtype is that of a merged result"),
    ],
)
def test_a_wrong_setting_is_named_with_its_cure(tmp_path: Path, settings: dict, message: str) -> None:
    path = written(tmp_path, **settings)
    with pytest.raises(ConfigError, match=message) as caught:
        read_config(path)
    assert str(path) in str(caught.value)


def test_a_wrong_setting_of_a_config_from_python_has_the_same_words() -> None:
    with pytest.raises(ConfigError, match="^method is 'qlora': give one of lora, full$"):
        RunConfig(**NEEDED, method="qlora")
    with pytest.raises(ConfigError, match="^it lacks data, images: add them, as in 'base: qsit-nano'$"):
        RunConfig(base="qsit-nano", output="out")
    with pytest.raises(ConfigError, match="epochs is 0: it must be from 1"):
        replace(RunConfig(**NEEDED), epochs=0)


def test_tensorboard_true_is_one_of_the_trackers() -> None:
    config = RunConfig(**NEEDED, tensorboard=True, report_to=["wandb"])
    assert config.report_to == ("wandb", "tensorboard")
    assert replace(config, epochs=2).report_to == config.report_to


def test_accelerate_knows_every_tracker() -> None:
    tracking = pytest.importorskip("accelerate.tracking", reason="accelerate is optional")
    assert set(get_args(Tracker)) <= tracking.LOGGER_TYPE_TO_CLASS.keys()


def test_lora_has_a_rank_of_16_and_with_an_adapter_the_adapters_own(tmp_path: Path) -> None:
    plain = RunConfig(**NEEDED)
    assert (plain.lora_rank, plain.lora_alpha, plain.lora_dropout) == (16, 32.0, 0.05)
    (tmp_path / "mine").mkdir()
    further = read_config(written(tmp_path, adapter="mine"))
    assert (further.adapter, further.lora_rank, further.lora_alpha) == (str(tmp_path / "mine"), None, None)


def test_settings_are_read_without_torch() -> None:
    code = "import sys, qsit_plugin.training.config; assert 'torch' not in sys.modules and 'peft' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_file_that_is_no_config_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such config file; qsit train configs FOLDER writes examples"):
        read_config(tmp_path / "absent.yaml")
    (tmp_path / "list.yaml").write_text("- base", encoding="utf-8")
    with pytest.raises(ConfigError, match="must hold one setting a line"):
        read_config(tmp_path / "list.yaml")
    (tmp_path / "broken.yaml").write_text("base: [", encoding="utf-8")
    with pytest.raises(ConfigError, match="is not valid YAML"):
        read_config(tmp_path / "broken.yaml")
    (tmp_path / "date.yaml").write_text("base: 2026-13-01", encoding="utf-8")
    with pytest.raises(ConfigError, match="date.yaml is not valid YAML: month must be in 1..12"):
        read_config(tmp_path / "date.yaml")
    with pytest.raises(ConfigError, match="is not valid YAML; write lists as"):
        read_config(written(tmp_path), ["parts=" + "[" * 5000])
    with pytest.raises(ConfigError, match="'--epochs' is no setting: write NAME=VALUE"):
        read_config(written(tmp_path), ["--epochs"])


def test_full_tunes_everything_and_lora_the_language_model() -> None:
    assert RunConfig(**NEEDED).trained_parts == ("language",)
    full = RunConfig(**NEEDED, method="full")
    assert set(full.trained_parts) == {"language", "projector", "vision"}
    assert (full.merged, RunConfig(**NEEDED).merged, RunConfig(**NEEDED, result="merged").merged) == (True, False, True)


def test_a_setting_that_is_no_yaml_is_refused_with_the_way_to_write_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'shares=\{a: 0.3': .* is not valid YAML; write lists as \[a, b\]"):
        read_config(written(tmp_path), ["shares={a: 0.3"])
