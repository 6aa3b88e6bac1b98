"""Two processes train as one does: the same losses, gradients and weights."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from qsit_plugin.row_file import read_rows
from tests.training.runs import Data, require_training

require_training()

import yaml  # noqa: E402

from qsit_plugin.training import run as finetune  # noqa: E402
from qsit_plugin.training.config import RunConfig  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]


def write_config(path: Path, config: RunConfig) -> Path:
    """As a file, with absolute paths."""
    path.write_text(yaml.safe_dump(config.to_dict()), encoding="utf-8")
    return path


def steps_of(output: Path) -> list[tuple[float, float]]:
    return [(row["loss"], row["grad_norm"]) for row in map(json.loads, read_rows(output / "log.jsonl"))]


def finished(command: list[str], environment: dict[str, str], folder: Path) -> tuple[int, str, str]:
    """(exit status, stdout, stderr); a launcher that hangs is asked to end its processes, too."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=environment, cwd=folder, **pipes) as process:
        try:
            out, err = process.communicate(timeout=300)
        except subprocess.TimeoutExpired:
            process.terminate()
            raise
        return process.returncode, out, err


def by_torchrun(command: list[str], folder: Path) -> tuple[int, str, str]:
    """(exit status, stdout, stderr) of two processes on the CPU."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return finished([*launcher, *command], environment, folder)


def in_two_processes(config: RunConfig, folder: Path) -> tuple[str, str]:
    """(stdout, stderr) of ``qsit train run`` by torchrun."""
    config_file = str(write_config(folder / "two.yaml", config))
    status, out, err = by_torchrun(["-m", "qsit_plugin.cli", "train", "run", config_file], folder)
    assert status == 0, err
    return out, err


def test_soft_rank_compares_the_ratings_of_two_processes_as_those_of_one_batch(tuning: Data, tmp_path: Path) -> None:
    """No process has a pair of its own, so without the other's ratings the loss of the order would be nothing; two
    batches a step, which are not compared. The order counts so much that a pair counted twice would show."""
    options = {"max_steps": 4, "save_every": 4, "level_loss": "soft+rank", "rank_weight": 5.0}
    options |= {"gradient_accumulation": 2, "memory_probe": True}
    finetune.run(tuning.config(tmp_path / "one", **options, batch_size=2), say=print)
    finetune.run(tuning.config(tmp_path / "soft", **options | {"level_loss": "soft"}, batch_size=2), say=print)
    _, err = in_two_processes(tuning.config(tmp_path / "two", **options, batch_size=1), tmp_path)
    assert "soft+rank: 0.7 pairs of ratings in a batch, on average, none in 33% of the batches" in err
    one, two, soft = (steps_of(tmp_path / name) for name in ("one", "two", "soft"))
    assert two == [pytest.approx(step, rel=1e-4) for step in one]
    assert max(abs(a[0] - b[0]) for a, b in zip(one, soft, strict=True)) > 0.01


def test_accelerates_own_accumulation_divides_no_loss(tuning: Data, tmp_path: Path, monkeypatch) -> None:
    finetune.run(tuning.config(tmp_path / "plain", max_steps=2), say=print)
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")
    finetune.run(tuning.config(tmp_path / "four", max_steps=2), say=print)
    assert steps_of(tmp_path / "four") == steps_of(tmp_path / "plain")


def test_two_processes_give_what_one_gives_with_twice_the_batch(tuning: Data, tmp_path: Path) -> None:
    """By torchrun, on the CPU; three steps an epoch, so the fourth is of the second. One of these steps has a rating on
    one process and a conversation on the other, which only a normalisation over both gets right."""
    options = {"max_steps": 4, "save_every": 4, "normalize": "task", "weight_decay": 0.1, "memory_probe": True}
    one = tuning.config(tmp_path / "one", **options, batch_size=2)
    finetune.run(one, say=print)
    two = tuning.config(tmp_path / "two", **options, batch_size=1)
    out, err = in_two_processes(two, tmp_path)
    assert out.split() == [str(tmp_path / "two" / "model")]  # said by one process alone
    assert err.count("step 4/4") == 1
    assert steps_of(tmp_path / "two") == [pytest.approx(step, rel=1e-4) for step in steps_of(tmp_path / "one")]
    expected, found = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("one", "two"))
    # Adam's first steps have the size of the learning rate whatever the gradient, so where it is nothing but rounding
    # its sign decides; most weights must be equal, and none may be further off than by such steps
    distances = torch.cat([(expected[name] - found[name]).abs().flatten() for name in expected])
    assert (distances < 1e-5).double().mean() > 0.98


GLOO_THREADS = """
import atexit, os, signal, sys
from pathlib import Path

signal.signal(signal.SIGTERM, signal.SIG_IGN)  # torchrun would end the second process after the first one's error

def tell(when):
    names = [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]
    os.write(1, f"{when}: {names.count('pt_gloo_runloop')} threads of rank {os.environ['RANK']}\\n".encode())

atexit.register(tell, "exit")  # before the run registers anything, so called after that
from qsit_plugin.training import run as finetune
from qsit_plugin.training.config import read_config

prepared = finetune.prepare(read_config(sys.argv[1]))

loss = prepared.loop.loss

def failing(batch, amounts):
    if os.environ["RANK"] == "0" and sys.argv[2] == "error":
        raise RuntimeError("stopped in a step")
    return loss(batch, amounts)

prepared.loop.loss = failing
tell("training")
finetune.train(prepared)
"""


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads are counted in /proc")
@pytest.mark.parametrize("end", ["done", "error"])
def test_no_thread_of_the_process_group_outlives_the_run(tuning: Data, tmp_path: Path, end: str) -> None:
    """Even where the script, the traceback of an error, or that of a collective whose other process is gone still holds
    the trainer or the group. A thread that is left needs the GIL to free its tensors, and aborts the process if the
    interpreter is ending by then: now and then, so what is tested is its cause."""
    (tmp_path / "run.py").write_text(GLOO_THREADS, encoding="utf-8")
    config_file = write_config(tmp_path / "run.yaml", tuning.config(tmp_path / "out", max_steps=1))
    status, out, err = by_torchrun([str(tmp_path / "run.py"), str(config_file), end], tmp_path)
    assert (status == 0) == (end == "done"), err
    assert ("by peer" in err) == (end == "error")  # Gloo: the connection is closed or reset, as the race goes
    for rank in (0, 1):
        assert f"training: 2 threads of rank {rank}\n" in out
        assert f"exit: 0 threads of rank {rank}\n" in out
