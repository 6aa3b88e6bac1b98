"""The garbage collector rests while torch and transformers are imported, and only then."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from pathlib import Path

import pytest

import qsit_plugin as qsit
from qsit_plugin.paused_collector import paused_collector
from tests.tiny import tiny_checkpoint

ROOT = Path(__file__).resolve().parents[2]

COUNTED = """if True:
    import gc, sys
    import qsit_plugin
    runs = []
    def note(phase, about):
        if phase == "start" and "torch" in sys.modules:
            runs.append("qsit_plugin.engines.torch_engine" in sys.modules)
    gc.callbacks.append(note)
    qsit_plugin.load("qsit-nano", engine="torch", device="cpu")
    gc.collect()
    print(runs.count(False), runs.count(True) > 0, gc.isenabled())
"""


def test_a_fresh_process_imports_torch_without_a_collection():
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-c", COUNTED], env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True
    )
    assert done.stdout.split() == ["0", "True", "True"], done.stderr


@pytest.mark.parametrize("enabled", [True, False])
def test_the_collector_is_afterwards_as_it_was(tmp_path, enabled):
    folder, before = tiny_checkpoint(tmp_path / "tiny", official=False), gc.isenabled()
    (gc.enable if enabled else gc.disable)()
    try:
        qsit.load(folder, engine="torch", device="cpu")
        assert gc.isenabled() == enabled
    finally:
        (gc.enable if before else gc.disable)()


def test_an_import_that_fails_leaves_the_collector_on():
    with pytest.raises(ModuleNotFoundError), paused_collector():
        assert not gc.isenabled()
        raise ModuleNotFoundError("torch")
    assert gc.isenabled()


def test_what_is_imported_is_old_afterwards():
    kept = []
    with paused_collector():
        kept.append([[] for _ in range(50_000)])
    assert len(gc.get_objects(generation=0)) < 50_000
    assert gc.get_freeze_count() == 0


def test_objects_that_the_program_has_frozen_stay_frozen():
    gc.freeze()
    try:
        before = gc.get_freeze_count()
        with paused_collector():
            pass
        assert gc.get_freeze_count() == pytest.approx(before, abs=before // 10) and before > 1000
    finally:
        gc.unfreeze()
