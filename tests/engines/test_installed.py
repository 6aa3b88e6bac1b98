"""What is said where an engine is not installed, or in a version that it does not work with."""

from __future__ import annotations

import json
import sys
from importlib import metadata
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

import qsit_plugin as qsit
from qsit_plugin.engines.choice import choose_engine
from tests.tiny import tiny_checkpoint

ONNX, TORCH = 'pip install "qsit-plugin[onnx]"', 'pip install "qsit-plugin[torch]"'


@pytest.fixture
def without(monkeypatch):
    """``without("torch")``: that package cannot be imported or found in this test."""

    def hide(*names: str) -> None:
        for name in names:
            monkeypatch.setitem(sys.modules, name, None)

    return hide


def test_a_score_without_any_engine_names_both_commands_before_a_checkpoint_is_looked_for(without):
    without("torch", "transformers", "onnxruntime")
    with pytest.raises(ModuleNotFoundError, match="^no engine is installed: ") as caught:
        qsit.load("no-such-checkpoint")
    assert ONNX in str(caught.value) and TORCH in str(caught.value)


def test_the_command_says_so_in_one_line_with_status_2(without, tmp_path):
    from qsit_plugin.cli.app import app

    without("torch", "transformers", "onnxruntime")
    Image.new("RGB", (8, 8)).save(tmp_path / "photo.png")
    result = CliRunner().invoke(app, ["score", str(tmp_path)], prog_name="qsit")
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith("qsit: no engine is installed: ") and ONNX in line and TORCH in line


def test_info_names_a_missing_engine_among_the_versions(without):
    from qsit_plugin.cli.app import app

    without("torch", "transformers", "onnxruntime")
    result = CliRunner().invoke(app, ["info"], prog_name="qsit")
    assert result.exit_code == 1
    assert "numpy" in result.stdout and result.stdout.splitlines()[-1].endswith("broken: devices, model")
    assert ONNX in result.stderr and TORCH in result.stderr


@pytest.mark.parametrize("missing", ["torch", "transformers"])
def test_a_named_torch_engine_that_is_not_installed_is_refused_with_its_command(small_folder, without, missing):
    without(missing)
    with pytest.raises(ModuleNotFoundError, match=rf"engine 'torch' needs {missing}, .*qsit-plugin\[torch\]"):
        qsit.load(small_folder, engine="torch")


def test_a_checkpoint_without_graphs_says_that_it_needs_torch(tmp_path, without):
    pytest.importorskip("onnxruntime")
    folder = tiny_checkpoint(tmp_path / "plain", official=False)
    without("torch")
    with pytest.raises(ModuleNotFoundError, match="plain without ONNX graphs needs torch, which is not installed"):
        choose_engine("auto", folder)


def test_graphs_of_other_weights_are_an_error_where_torch_cannot_take_over(small_folder: Path, without):
    path = small_folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | {"note": 1}), encoding="utf-8")
    without("torch")
    with pytest.raises(qsit.WeightsError, match="do not belong to it"):
        choose_engine("auto", small_folder, device="cpu")


@pytest.mark.parametrize(
    ("name", "version", "cure"),
    [
        ("transformers", "4.56.2", "transformers>=4.57'"),
        ("transformers", "5.0.0", "transformers>=4.57,!=5.0.0'"),
        ("torch", "2.5.1+cu121", "torch>=2.6'"),
    ],
)
def test_versions_that_pip_no_longer_guards_are_refused_by_name(small_folder, monkeypatch, name, version, cure):
    installed = metadata.version
    monkeypatch.setattr(metadata, "version", lambda asked: version if asked == name else installed(asked))
    with pytest.raises(qsit.WeightsError, match=f"does not work with this {name}: version ") as caught:
        qsit.load(small_folder, engine="torch")
    assert version in str(caught.value) and cure in str(caught.value)
