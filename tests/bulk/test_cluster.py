"""qsit score --engine-on: the rows of the plain path, on Ray, whole or not at all.

Ray is not in the tests' environment: what needs it is skipped there. The long forms, with two nodes, a worker that is
killed and a run that is stopped, run with -m slow.
"""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from qsit_plugin.bulk import Scorer
from tests.bulk.conftest import picture

ROOT = Path(__file__).resolve().parents[2]
RAY = importlib.util.find_spec("ray") is not None
needs_ray = pytest.mark.skipif(not RAY, reason='needs pip install "qsit-plugin[onnx,ray]"')


def start(*command: object) -> subprocess.Popen[str]:
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    env = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    words, pipe = [sys.executable, *map(str, command)], subprocess.PIPE
    return subprocess.Popen(words, cwd=ROOT, env=env, stdout=pipe, stderr=pipe, text=True)


def check_equal(folder: Path, paths: list[Path]) -> None:
    """The table holds these images, each once, with the numbers of the plain path to the last digit."""
    import pyarrow.parquet as parquet

    found: dict[str, dict[str, Any]] = {}
    for row in parquet.read_table(folder).to_pylist():
        assert row["path"] not in found, "a row is there twice"
        found[row["path"]] = row
    assert sorted(found) == sorted(map(str, paths))
    for path, record in zip(paths, Scorer("qsit-nano", device="cpu").records(paths), strict=True):
        row = found[str(path)]
        if "error" in record:
            assert row["score"] is None and row["error"] == f"ImageError: {record['error']['message']}"
            continue
        flat = record | record.pop("probabilities")
        assert {name: row[name] for name in flat if name in row} == {name: flat[name] for name in flat if name in row}
        assert row["error"] is None


@needs_ray
def test_the_rows_on_ray_are_those_of_the_plain_path(album: Path, tmp_path: Path) -> None:
    out = tmp_path / "s.parquet"
    command = ("-m", "qsit_plugin.cli", "score", album, "--engine-on", "local", "--workers", 1, "--out", out)
    for _ in range(3):
        run = start(*command)
        _, said = run.communicate(timeout=600)
        if "Ray does not start" not in said:  # on a busy machine Ray's own limit of 30 s
            break
    assert run.returncode == 1, said
    assert "bad.png: ImageError: " in said and "4 images, 1 of them failed" in said
    check_equal(out, sorted(album.rglob("*.png")))
    assert not out.with_name("s.parquet.partial").exists()
    assert [file.name for file in out.iterdir() if not file.name.startswith("part-")] == []


@pytest.mark.slow
@needs_ray
def test_a_worker_killed_in_the_middle_loses_and_doubles_no_row(tmp_path: Path) -> None:
    paths = [picture(tmp_path / "album" / f"{number:03}.png", number) for number in range(90)]
    seen = two_nodes(tmp_path, "kill")
    assert seen["killed"] in seen["workers"] and len(set(seen["workers"])) > 1
    assert (seen["rows"], seen["failed"], seen["units"]) == (90, 0, 15)
    check_equal(tmp_path / "s.parquet", paths)
    assert len(list((tmp_path / "s.parquet").iterdir())) == 15  # and nothing that the killed worker left


@pytest.mark.slow
@needs_ray
def test_a_run_that_was_stopped_leaves_no_table_and_goes_on(tmp_path: Path) -> None:
    paths = [picture(tmp_path / "album" / f"{number:03}.png", number) for number in range(60)]
    seen = two_nodes(tmp_path, "stop")
    assert seen["table after the stop"] is False and seen["times"]
    table = tmp_path / "s.parquet"
    kept = {part: (table / part).stat().st_mtime_ns for part in seen["times"]}
    assert kept == seen["times"], "a part that was whole was made again"
    check_equal(table, paths)


@pytest.mark.slow
@needs_ray
def test_the_rows_through_a_cluster_s_client_port_are_those_of_the_plain_path(
    album: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    port, client = free_port(), free_port()
    ports = ("--node-ip-address", "127.0.0.1", "--port", port, "--ray-client-server-port", client)
    head = start("-m", "ray.scripts.scripts", "start", "--head", "--block", *ports, "--include-dashboard", "false")
    out = tmp_path / "s.parquet"
    try:
        for _ in range(300):
            run = start(
                "-m", "qsit_plugin.cli", "score", album, "--engine-on", f"ray://127.0.0.1:{client}", "--out", out
            )
            _, said = run.communicate(timeout=600)
            if "nobody answers" not in said:  # the head has not begun to listen
                break
    finally:
        head.terminate()
        head.communicate(timeout=60)
    assert run.returncode == 1 and "4 images, 1 of them failed" in said, said
    check_equal(out, sorted(album.rglob("*.png")))


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def two_nodes(folder: Path, kind: str) -> dict[str, Any]:
    run = start("-m", "tests.bulk.two_nodes", folder / "album", folder / "s.parquet", kind)
    out, said = run.communicate(timeout=900)
    assert run.returncode == 0, said[-4000:]
    return json.loads(out.splitlines()[-1])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--workers", 2), "--workers goes with --engine-on"),
        (("--gpus", 0.5), "--gpus goes with --engine-on"),
        (("--engine-on", "local"), "give --out DIR.parquet"),
        (("--engine-on", "local", "--out", "s.csv"), "give --out DIR.parquet"),
        (("--engine-on", "local", "--out", "s.parquet", "--format", "csv"), "writes parquet, not csv"),
        (("--engine-on", "local", "--out", "s.parquet", "--resume"), "--resume is not needed with --engine-on"),
        (("--engine-on", "local", "--out", "s.parquet", "--image-column", "a"), "--image-column goes with --out FILE"),
        (("--engine-on", "local", "--out", "s.parquet", "--verify"), "--verify goes with --out FILE.sqlite"),
        (("--engine-on", "local", "--out", "s.parquet", "--workers", "3-2"), "--workers '3-2': give a number"),
        (("--engine-on", "local", "--out", "s.parquet", "--workers", "0"), "--workers '0': give a number"),
        (("--engine-on", "local", "--out", "no/s.parquet"), "the folder it shall lie in does not exist"),
        (("--engine-on", "local", "--out", "s.parquet", "--list", "no.txt"), "no such file: no.txt"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(qsit, album, tmp_path, monkeypatch, arguments, said) -> None:
    monkeypatch.chdir(tmp_path)
    result = qsit("score", album, *arguments)
    assert result.exit_code == 2
    assert said in result.stderr and result.stderr.count("\n") == 1
    assert not list(tmp_path.glob("s.*"))


@pytest.mark.parametrize("there", ["file", "folder"])
def test_what_is_there_is_not_overwritten(qsit, album, tmp_path, there) -> None:
    out = tmp_path / "s.parquet"
    out.mkdir() if there == "folder" else out.write_bytes(b"mine")
    result = qsit("score", album, "--engine-on", "local", "--out", out)
    assert result.exit_code == 2 and "is there already, and stays as it is" in result.stderr
    assert out.is_dir() or out.read_bytes() == b"mine"


@pytest.mark.skipif(RAY, reason="Ray is installed")
def test_without_ray_the_extra_is_named(qsit, album, tmp_path) -> None:
    result = qsit("score", album, "--engine-on", "local", "--out", tmp_path / "s.parquet")
    assert result.exit_code == 2 and "pip install 'qsit-plugin[ray]'" in result.stderr


@needs_ray
def test_an_address_that_nobody_answers_is_refused_at_once(qsit, album, tmp_path) -> None:
    address = f"ray://127.0.0.1:{free_port()}"
    result = qsit("score", album, "--engine-on", address, "--out", tmp_path / "s.parquet")
    assert result.exit_code == 2 and f"nobody answers at {address}" in result.stderr
    assert not list(tmp_path.glob("s.*"))
