"""Checkpoints with ONNX graphs: the embedded model and tiny random ones, exported once into temporary folders."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.conftest import GRAPHS, NANO
from tests.tiny import tiny_checkpoint

pytest.importorskip("onnx", reason="exporting graphs needs onnx")
pytest.importorskip("onnxruntime", reason="the ONNX engine needs onnxruntime")

from qsit_plugin.checkpoint.onnx_export import export_onnx  # noqa: E402


@pytest.fixture(scope="session")
def nano_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the embedded model, with its graphs; do not change it."""
    folder = tmp_path_factory.mktemp("nano") / "nano"
    shutil.copytree(NANO, folder, ignore=shutil.ignore_patterns(*GRAPHS, "golden*"))
    export_onnx(folder)
    return folder


@pytest.fixture(scope="session")
def official_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights in the official layout (tiles of 384, patches of 14, grouped key-value heads), with their graphs;
    do not change it."""
    folder = tiny_checkpoint(tmp_path_factory.mktemp("official") / "official")
    export_onnx(folder)
    return folder


@pytest.fixture(scope="session")
def _small_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tiny_checkpoint(tmp_path_factory.mktemp("small") / "small", official=False, tie=False)
    export_onnx(folder)
    return folder


@pytest.fixture
def small_folder(_small_folder: Path, tmp_path: Path) -> Path:
    """Random weights whose head is not the embedding, with their graphs; a copy that a test may change."""
    return shutil.copytree(_small_folder, tmp_path / "small")
