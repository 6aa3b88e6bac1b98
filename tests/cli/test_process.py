"""The command as a separate process: what it imports, its two streams, Ctrl-C and a closed pipe."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
START = "import sys; from qsit_plugin.cli import main; main(sys.argv[1:])"
# A shell that starts a job in the background makes it deaf to Ctrl-C; the test must not depend on who started it.
LISTENING = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "


def environment() -> dict[str, str]:
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "PYTHONIOENCODING": ""}


def start(*arguments: object, code: str = START, **options) -> subprocess.Popen:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, env=environment(), encoding="utf-8", **options)


def test_help_lists_the_sub_commands_and_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom qsit_plugin.cli import main\n"
        "try:\n    main(['--help'])\n"
        "except SystemExit as end:\n    assert end.code == 0\n"
        "heavy = {'torch', 'transformers', 'numpy', 'PIL', 'huggingface_hub'} & set(sys.modules)\n"
        "print('heavy:', sorted(heavy))"
    )
    out, err = start(code=code).communicate(timeout=120)
    assert "heavy: []" in out, out + err
    for name in ("score", "ask", "explain", "compare", "demo", "info", "weights"):
        assert f" {name} " in out


def test_data_goes_to_stdout_and_everything_else_to_stderr(album: Path, tiny_folder: Path) -> None:
    process = start("score", album, "--format", "jsonl", "--model", tiny_folder)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 1
    assert [("error" in json.loads(line)) for line in out.splitlines()] == [False, True, False]
    assert "tiny on " in err and "b.png: " in err
    assert "Traceback" not in err


def test_ctrl_c_leaves_the_finished_rows_and_ends_with_130(album: Path, tiny_folder: Path) -> None:
    if sys.platform == "win32":
        pytest.skip("Windows sends Ctrl-C to whole process groups, this test run included")
    photos = [shutil.copy(album / "a.png", album / f"copy{i:04}.png") for i in range(3000)]
    with start("score", *photos, "--format", "jsonl", "--model", tiny_folder, code=LISTENING + START) as process:
        assert process.stdout is not None and process.stderr is not None
        rows = [process.stdout.readline() for _ in range(3)]
        process.send_signal(signal.SIGINT)
        rest, err = process.stdout.read(), process.stderr.read()
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert len([line for line in err.splitlines() if line.startswith("qsit: interrupted")]) == 1
    done = [json.loads(line) for line in [*rows, *rest.splitlines()]]
    assert 3 <= len(done) < 3000
    counted = int(err.split("qsit: interrupted: ")[1].split()[0])
    assert abs(counted - len(done)) <= 1  # the signal may fall between a row and its being counted


def test_a_reader_that_leaves_early_causes_no_complaint(album: Path, tiny_folder: Path) -> None:
    photos = [shutil.copy(album / "a.png", album / f"copy{i:04}.png") for i in range(300)]
    with start("score", *photos, "--format", "jsonl", "--model", tiny_folder) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        err = process.stderr.read()
    assert process.returncode == 141
    assert "Traceback" not in err and "BrokenPipe" not in err
