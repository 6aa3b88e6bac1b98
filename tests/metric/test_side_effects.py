"""Creating and using the metric leaves the process, the libraries beside it and their files as they were.

The state of a process is what is tested, so everything runs in fresh ones: side_effects_probe.py.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("pyiqa")

from tests.metric.process_state import changes, files_of  # noqa: E402

HERE = Path(__file__).resolve().parent
STEPS = ("register", "create", "score", "explain", "optimise")
FILES = {"files of pyiqa", "files of transformers"}


def probe(mode: str, where: Path) -> dict:
    """The report of side_effects_probe.py from a process that has not imported our package at its start."""
    paths = os.pathsep.join(filter(None, [str(HERE.parents[1]), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, str(HERE / "side_effects_probe.py"), mode, str(where)], capture_output=True, text=True,
        encoding="utf-8", env=os.environ | {"PYTHONPATH": paths, "QSIT_NO_PYIQA_HOOK": "1"},
    )  # fmt: skip
    assert done.stdout, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def used(nano, tmp_path_factory) -> dict:
    photo = tmp_path_factory.mktemp("photo") / "noise.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (120, 160, 3), dtype=np.uint8)).save(photo)
    return probe("use", photo)


@pytest.mark.parametrize("step", STEPS)
def test_no_step_changes_anything_in_the_process(used, step):
    assert step not in used["errors"], used["errors"][step]
    assert used["changes"][step] == {}


def test_other_metrics_and_an_ordinary_llama_give_the_same_numbers_before_and_after(used):
    assert len(used["before"]) == 9
    assert all(np.isfinite(values).all() for values in used["before"].values())
    assert used["after"] == used["before"]


def test_metrics_created_after_ours_give_the_numbers_of_those_created_before(used):
    assert used["created anew"] == used["before"]


def test_the_comparison_notices_a_change_of_everything_that_is_watched(tmp_path):
    report = probe("soil", tmp_path)
    assert set(report["found"]) == set(report["watched"]) - FILES
    assert [name for name, noticed in report["found"].items() if name not in noticed] == []


@pytest.mark.parametrize("change", ["written", "added", "removed"])
def test_the_comparison_notices_a_file_that_was(tmp_path, change):
    (tmp_path / "modeling.py").write_text("x = 1\n", encoding="utf-8")
    before = {"files of transformers": files_of(tmp_path)}
    if change == "written":
        (tmp_path / "modeling.py").write_text("x = 12\n", encoding="utf-8")
    elif change == "added":
        (tmp_path / "shim.py").write_text("x = 1\n", encoding="utf-8")
    else:
        (tmp_path / "modeling.py").unlink()
    assert set(changes(before, {"files of transformers": files_of(tmp_path)})) == {"files of transformers"}
