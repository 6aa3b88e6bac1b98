"""A tiny random checkpoint, a few pictures, and a way to run the command inside this process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from tests.tiny import tiny_checkpoint


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("checkpoint") / "tiny", official=False)


@pytest.fixture
def album(tmp_path: Path) -> Path:
    """A folder with two pictures and a broken one between them."""
    folder = tmp_path / "album"
    folder.mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "a.png")
    (folder / "b.png").write_bytes(b"this is no picture")
    Image.new("RGB", (40, 40), (90, 120, 200)).save(folder / "c.png")
    return folder


@pytest.fixture
def qsit() -> Callable[..., Any]:
    """``qsit("score", path, …)`` -> a result with exit_code, stdout and stderr."""

    def run(*arguments: object) -> Any:
        from qsit_plugin.cli.app import app

        result = CliRunner().invoke(app, [str(argument) for argument in arguments], prog_name="qsit")
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result

    return run
