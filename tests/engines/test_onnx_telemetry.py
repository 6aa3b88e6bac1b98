"""ONNX Runtime reports to its maker by default; the engine does not let it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from qsit_plugin.engines.onnx_session import TELEMETRY_SWITCH

ROOT = Path(__file__).resolve().parents[2]
PHOTO = ROOT / "qsit_plugin" / "demo" / "astronaut.jpg"
SCORES = f"import qsit_plugin; print(qsit_plugin.load('qsit-nano', engine='onnx').score({str(PHOTO)!r}).level)"


def written_by(code: str, home: Path) -> list[str]:
    """Files in the home folder of a fresh process that ran the code. ONNX Runtime is silent by itself on CI machines,
    and where a test of its own runs, so neither is told to it."""
    told = ("CI", "GITHUB_ACTIONS", "TF_BUILD", "ORT_RUNNING_UNIT_TESTS", TELEMETRY_SWITCH, "QSIT_CACHE")
    known = {name: value for name, value in os.environ.items() if name not in told and not name.startswith("XDG_")}
    environment = known | {"HOME": str(home), "USERPROFILE": str(home), "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, cwd=ROOT, capture_output=True)
    return [path.relative_to(home).as_posix() for path in home.rglob("*") if path.is_file()]


def test_a_score_leaves_nothing_of_onnx_runtime_in_the_home_folder(tmp_path):
    assert [name for name in written_by(SCORES, tmp_path) if "onnxruntime" in name.lower()] == []


def test_what_the_user_has_set_stays(tmp_path):
    code = (
        f"import os; os.environ[{TELEMETRY_SWITCH!r}] = '0'; {SCORES}; assert os.environ[{TELEMETRY_SWITCH!r}] == '0'"
    )
    written_by(code, tmp_path)
