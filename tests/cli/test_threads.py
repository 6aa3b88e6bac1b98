"""The command's own process waits asleep and keeps to its container's share; what the user set stays."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from qsit_plugin.engines.cores import cpu_quota

PROBE = """
import os, sys
from qsit_plugin.cli.threads import share_the_cores
if len(sys.argv) > 1:
    sys.modules["torch"] = sys  # as in a program that has loaded it before
share_the_cores()
print(os.environ.get("OMP_WAIT_POLICY"))
"""


def policy(environment: dict[str, str], *arguments: str) -> str:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("OMP_")}
    command = [sys.executable, "-c", PROBE, *arguments]
    return subprocess.run(command, env=clean | environment, capture_output=True, text=True, check=True).stdout.strip()


def test_threads_wait_asleep_unless_the_user_chose():
    assert policy({}) == "PASSIVE"
    assert policy({"OMP_WAIT_POLICY": "ACTIVE"}) == "ACTIVE"


def test_a_program_that_has_loaded_torch_keeps_its_environment():
    assert policy({}, "loaded") == "None"


@pytest.mark.parametrize(("content", "quota"), [("max 100000", None), ("150000 100000", 1.5), ("50000 100000", 0.5)])
def test_the_quota_of_a_container_is_read_in_cgroup_2(tmp_path, content, quota):
    (tmp_path / "cpu.max").write_text(content + "\n")
    assert cpu_quota(tmp_path) == quota


@pytest.mark.parametrize(("limit", "quota"), [("-1", None), ("200000", 2.0)])
def test_the_quota_of_a_container_is_read_in_cgroup_1(tmp_path, limit, quota):
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text(limit + "\n")
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    assert cpu_quota(tmp_path) == quota


def test_no_quota_where_there_are_no_control_groups(tmp_path):
    assert cpu_quota(tmp_path) is None


def test_a_quota_below_the_cores_of_the_process_limits_the_threads_of_the_onnx_engine(monkeypatch):
    from qsit_plugin.engines import cores
    from qsit_plugin.engines.onnx_session import cpu_threads

    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    for quota in (0.5, 1.9):
        monkeypatch.setattr(cores, "cpu_quota", lambda quota=quota: quota)
        assert cpu_threads() == 1
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert cpu_threads() == 3
