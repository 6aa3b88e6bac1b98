"""A run that cannot go on, or that is stopped, says in one message why and how to go on."""

from __future__ import annotations

import os
import re
import signal
import sys
from pathlib import Path

import pytest

from tests.cli.test_process import LISTENING, START, start
from tests.training.runs import Data, make_data, require_training

yaml = pytest.importorskip("yaml", reason="settings are YAML")


@pytest.fixture
def tuned(tmp_path: Path) -> Data:
    require_training()
    return make_data(tmp_path)


def settings(data: Data, **changes: object) -> Path:
    path = data.folder / "run.yaml"
    path.write_text(yaml.safe_dump(data.config(data.folder / "out", **changes).to_dict()), encoding="utf-8")
    return path


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_is_cut_off_ends_the_run_in_one_line_and_a_whole_one_lets_it_go_on(
    qsit, tuned: Data, workers: int
) -> None:
    picture = tuned.folder / "3.png"
    whole = picture.read_bytes()
    picture.write_bytes(whole[: len(whole) // 2])
    config = settings(tuned, workers=workers, max_steps=4, batch_size=2)
    result = qsit("train", "run", config)
    assert result.exit_code == 2
    *_, last = result.stderr.splitlines()
    assert last.startswith(f"qsit: {picture}: cannot be decoded")
    assert last.endswith("or give skip_damaged: true; a run that has begun then goes on with --resume")
    assert "Traceback" not in result.stderr
    picture.write_bytes(whole)
    again = qsit("train", "run", config, "--resume")
    assert again.exit_code == 0, again.stderr


def test_an_output_that_is_a_file_or_below_one_is_refused(qsit, tuned: Data) -> None:
    config = settings(tuned)
    for output in ("0.png", "0.png/below"):
        result = qsit("train", "run", config, f"output={output}")
        assert result.exit_code == 2
        assert "0.png is a file: give a folder" in result.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="no signal to another process on Windows")
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stop_saves_the_step_under_way_and_says_how_to_go_on(tuned: Data, number: int, status: int) -> None:
    """With workers, which the terminal's Ctrl-C reaches as well: the signal goes to the whole process group."""
    config = settings(tuned, max_steps=100_000, save_every=90_000, batch_size=1, gradient_accumulation=2, workers=2)
    with start("train", "run", config, code=LISTENING + START, start_new_session=True) as process:
        assert process.stderr is not None
        seen = []
        for line in process.stderr:
            seen.append(line)
            if line.startswith("step 5/"):
                break
        os.killpg(process.pid, number)
        rest = process.stderr.read()
    assert process.returncode == status, "".join(seen) + rest
    assert "Traceback" not in rest
    step = int(re.findall(r"^step (\d+)/", rest, re.MULTILINE)[-1]) if "\nstep " in f"\n{rest}" else 5
    assert rest.splitlines()[-1] == (
        f"qsit: interrupted. Saved in {tuned.folder / 'out'} is step {step}: the same command with --resume goes on "
        "from it"
    )


def test_what_is_saved_is_told_without_importing_torch(tmp_path: Path) -> None:
    """Ctrl-C may come while torch is imported; importing it once more takes seconds, or fails."""
    (tmp_path / "run.json").touch()
    code = (
        "import sys; from qsit_plugin.cli.train.reporting import what_a_run_has_saved as saved\n"
        "print(saved(sys.argv[1])); print('torch' in sys.modules)"
    )
    out, err = start(tmp_path, code=code).communicate(timeout=120)
    assert out == f"No step is saved in {tmp_path} yet: the same command with --resume begins again\nFalse\n", err
