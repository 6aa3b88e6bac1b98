"""The embedded model, a folder of thumbnails with a damaged one, and the command inside this process."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from tests.conftest import NANO

OLD = 1_700_000_000
"""Seconds: a time of change that lies well back, as that of most photos."""


def picture(path: Path, seed: int, *, mtime: int = OLD) -> Path:
    """A small picture, other pixels for another seed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path, "PNG")
    os.utime(path, (mtime, mtime))
    return path


@pytest.fixture(scope="session", autouse=True)
def nano_is_there() -> None:
    if not (NANO / "config.json").is_file():
        pytest.skip("weights/nano is not there yet: training/nano makes it")


@pytest.fixture
def album(tmp_path: Path) -> Path:
    """a.png, b.png and inner/c.png, and between them a file that is no picture."""
    folder = tmp_path / "album"
    for seed, name in enumerate(("a.png", "b.png", "inner/c.png")):
        picture(folder / name, seed)
    (folder / "bad.png").write_bytes(b"this is no picture")
    os.utime(folder / "bad.png", (OLD, OLD))
    return folder


@pytest.fixture
def qsit() -> Callable[..., Any]:
    """``qsit("score", path, …)`` -> a result with exit_code, stdout and stderr."""

    def run(*arguments: object, stdin: bytes | None = None) -> Any:
        from qsit_plugin.cli.app import app

        result = CliRunner().invoke(app, [os.fspath(a) if isinstance(a, Path) else str(a) for a in arguments], stdin)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result

    return run
