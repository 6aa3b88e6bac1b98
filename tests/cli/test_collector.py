"""Garbage collection while a sub-command works: it is off around imports alone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from .test_process import environment

COMMANDS = (
    "score PROBE",
    "ask PROBE -q dark?",
    "explain PROBE",
    "compare PROBE PROBE",
    "weights verify qsit-nano --image PROBE",
    "bench accuracy --dataset csv --images . --annotations PROBE --out OUT.json",
    "bench calibrate PROBE --scale own",
    "train convert csv PROBE --images . --range 0 1 --out OUT.jsonl",
    "train plan PROBE",
    "train run PROBE",
    "train balance search PROBE",
    "train balance verify PROBE PROBE --validation PROBE --out OUT",
)
"""Each opens PROBE, a file that it cannot use, as its first work after the imports."""

WATCH = """
import gc, json, sys
probe, commands = sys.argv[1], json.loads(sys.argv[2])
seen = []
def watch(event, arguments):
    if event == "open" and arguments[0] == probe:
        seen.append(gc.isenabled())
sys.addaudithook(watch)
from qsit_plugin.cli import main
reports = {}
for command in commands:
    seen.clear()
    try:
        main(command.split())
    except SystemExit:
        reports[command] = {"while it works": sorted(set(seen)), "at its end": gc.isenabled()}
print(json.dumps(reports))
"""


def test_garbage_is_collected_while_any_command_works(tmp_path: Path) -> None:
    probe = tmp_path / "probe"
    probe.write_bytes(b"neither a picture nor a checkpoint nor a table")
    commands = [line.replace("PROBE", str(probe)).replace("OUT", str(tmp_path / "out")) for line in COMMANDS]
    ended = subprocess.run(
        [sys.executable, "-c", WATCH, str(probe), json.dumps(commands)],
        env=environment(), cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    reports = json.loads(ended.stdout.splitlines()[-1])
    assert reports == dict.fromkeys(commands, {"while it works": [True], "at its end": True}), ended.stderr
