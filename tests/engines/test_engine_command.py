"""``--engine`` on the command line, and the pyiqa metric, which stays with torch."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner


@pytest.fixture
def photo(tmp_path):
    array = np.random.default_rng(0).integers(0, 256, (100, 150, 3), dtype=np.uint8)
    Image.fromarray(array).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def qsit(*arguments):
    from qsit_plugin.cli.app import app

    return CliRunner().invoke(app, list(map(str, arguments)), prog_name="qsit")


@pytest.mark.parametrize("engine", ["torch", "onnx"])
def test_every_kind_of_row_names_the_engine(small_folder, photo, engine):
    chosen = ("--model", small_folder, "--engine", engine, "--device", "cpu", "--format", "jsonl")
    row = json.loads(qsit("score", photo, *chosen).stdout)
    answer = json.loads(qsit("explain", photo, *chosen, "--max-new-tokens", 3).stdout)
    pair = json.loads(qsit("compare", photo, photo, *chosen).stdout)
    assert {row["engine"], answer["engine"], pair["a"]["engine"], pair["b"]["engine"]} == {engine}
    table = qsit("compare", photo, photo, *chosen[:-1], "csv").stdout.splitlines()
    assert dict(zip(*(line.split(",") for line in table), strict=True))["engine"] == engine


def test_info_and_the_headline_name_the_engine(small_folder, photo):
    assert "cpu, float32, engine onnx" in qsit("info", "--model", small_folder, "--engine", "onnx").stdout
    assert "small on cpu, float32 (onnx)" in qsit("score", photo, "-m", small_folder, "--engine", "onnx").stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--engine", "vllm"), "engine 'vllm' is unknown; give one of auto, torch, onnx"),
        (("--engine", "onnx", "--device", "cuda"), "give device 'cpu', not 'cuda', or engine 'torch'"),
        (("--engine", "onnx", "--dtype", "bfloat16"), "give dtype 'float32', not 'bfloat16', or engine 'torch'"),
        (("--engine", "onnx", "--adapter", "mine"), "save the checkpoint with its adapter merged"),
    ],
)
def test_what_an_engine_cannot_do_is_wrong_usage(small_folder, photo, options, message):
    result = qsit("score", photo, "--model", small_folder, *options)
    assert result.exit_code == 2
    assert message in result.stderr


def test_a_checkpoint_without_graphs_is_wrong_usage_with_the_command_that_makes_them(photo, small_folder):
    (small_folder / "onnx.json").unlink()
    result = qsit("score", photo, "--engine", "onnx", "--model", small_folder)
    assert result.exit_code == 2
    assert "has no ONNX graphs" in result.stderr and "qsit weights export" in result.stderr


def test_the_pyiqa_metric_stays_with_torch(small_folder):
    pytest.importorskip("pyiqa")
    from qsit_plugin.metric import QSiTMetric

    metric = QSiTMetric(pretrained_model_path=str(small_folder))
    assert metric.core.engine.name == "torch"
