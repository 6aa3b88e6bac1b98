"""A user sees what a user can act on: no advice of the packages below, no look-ups on the Hub."""

from __future__ import annotations

import logging
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

import qsit_plugin as qsit

from .runs import Data, require_training

require_training()


def test_an_adapter_is_made_and_loaded_without_a_warning_or_a_look_up(
    tuning: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from peft.utils import save_and_load

    from qsit_plugin.training.run import run

    def asked(*arguments: object, **options: object) -> bool:
        raise AssertionError("peft asks the Hub for the base's config.json")

    monkeypatch.setattr(save_and_load, "check_file_exists_on_hf_hub", asked)
    config = tuning.config(tmp_path / "out", method="lora", max_steps=1, gradient_checkpointing=True)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        folder = run(config)
        qsit.load(tuning.base, adapter=folder, device="cpu")
    theirs = [str(one.message) for one in seen if "peft" in one.filename or "transformers" in one.filename]
    assert theirs == []


def test_importing_peft_does_not_advise_another_package() -> None:
    """In a process of its own: the advice comes when bitsandbytes is first imported, on CPUs with AVX512-BF16."""
    code = (
        "import logging, qsit_plugin.checkpoint.adapter as a; a.import_peft()\n"
        "logging.getLogger('bitsandbytes.backends.cpu.ops').warning('something else')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "gemm_4bit_forward" not in done.stderr
    assert "something else" in done.stderr


def test_only_that_advice_is_held_back(caplog: pytest.LogCaptureFixture) -> None:
    from qsit_plugin.checkpoint.adapter import import_peft

    import_peft()
    logging.getLogger("bitsandbytes.backends.cpu.ops").warning("Failed to load CPU gemm_4bit_forward")
    assert "gemm_4bit_forward" in caplog.text
