"""What ends a run before its last step, and what goes on after it."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from qsit_plugin.row_file import read_rows
from tests.training.runs import Data, require_training

require_training()

from qsit_plugin.training import checkpoints  # noqa: E402
from qsit_plugin.training import run as finetune  # noqa: E402
from qsit_plugin.training.checkpoints import newest  # noqa: E402
from qsit_plugin.training.config import ConfigError, RunConfig  # noqa: E402
from qsit_plugin.training.data.rows import write_rows  # noqa: E402
from qsit_plugin.training.signals import Stopped, StopSignals  # noqa: E402
from tests.training.test_finetune_devices import ROOT, write_config  # noqa: E402
from tests.training.test_finetune_resume import quiet, weights_of  # noqa: E402


def stopped_at(config: RunConfig, step: int, number: int) -> Stopped:
    """A run that gets a signal while it computes a step."""
    prepared = finetune.prepare(config, say=quiet)
    loss, sent = prepared.loop.loss, []

    def interrupted(batch, amounts):
        if prepared.loop.done == step - 1 and not sent:
            sent.append(number)
            os.kill(os.getpid(), number)
        return loss(batch, amounts)

    prepared.loop.loss = interrupted
    with pytest.raises(Stopped) as caught:
        finetune.train(prepared)
    return caught.value


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_saves_the_step_under_way_and_the_run_goes_on_bit_for_bit(tuning: Data, tmp_path, number: int) -> None:
    options = {"max_steps": 5, "save_every": 100, "batch_size": 1, "gradient_accumulation": 2}
    whole = finetune.run(tuning.config(tmp_path / "whole", **options), say=quiet)
    config = tuning.config(tmp_path / "stopped", **options)
    before = signal.getsignal(number)
    assert stopped_at(config, 3, number).number == number
    assert signal.getsignal(number) is before
    assert newest(tmp_path / "stopped" / "checkpoints").name == "checkpoint-3"
    resumed = finetune.run(config, resume=True, say=quiet)
    expected, found = weights_of(whole), weights_of(resumed)
    assert all(torch.equal(weight, found[name]) for name, weight in expected.items())


def test_a_stop_while_the_last_step_is_saved_is_not_lost(tuning: Data, tmp_path: Path, monkeypatch) -> None:
    """What follows, all validation rows and the export, may take long."""
    save = checkpoints.save

    def interrupted(loop, folder):
        os.kill(os.getpid(), signal.SIGINT)
        return save(loop, folder)

    monkeypatch.setattr(checkpoints, "save", interrupted)
    with pytest.raises(Stopped):
        finetune.run(tuning.config(tmp_path, max_steps=2), say=quiet)
    assert newest(tmp_path / "checkpoints").name == "checkpoint-2" and not (tmp_path / "model").exists()


def test_a_signal_that_torchrun_sends_once_more_is_the_same_stop() -> None:
    with StopSignals() as signals:
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGINT)
    assert signals.number == signal.SIGINT


def test_a_second_signal_stops_at_once(monkeypatch) -> None:
    monkeypatch.setattr("qsit_plugin.training.signals.SAME", 0.0)
    with pytest.raises(Stopped), StopSignals() as signals:
        os.kill(os.getpid(), signal.SIGINT)
        assert signals.number == signal.SIGINT
        os.kill(os.getpid(), signal.SIGINT)
        pytest.fail("the second signal was ignored")


def test_a_run_in_another_thread_leaves_the_signals_alone(tuning: Data, tmp_path: Path) -> None:
    before, results = signal.getsignal(signal.SIGINT), []
    config = tuning.config(tmp_path, max_steps=1)
    thread = threading.Thread(target=lambda: results.append(finetune.run(config, say=quiet)))
    thread.start()
    thread.join()
    assert results == [tmp_path / "model"] and signal.getsignal(signal.SIGINT) is before


def test_a_finished_run_is_given_more_epochs(tuning: Data, tmp_path: Path) -> None:
    """With a constant rate the schedule is the same, so the longer run must be the one that was never stopped."""
    whole = finetune.run(tuning.config(tmp_path / "whole", epochs=3), say=quiet)
    finetune.run(tuning.config(tmp_path / "more", epochs=1), say=quiet)
    lines: list[str] = []
    more = finetune.run(tuning.config(tmp_path / "more", epochs=3), resume=True, say=lines.append)
    assert "6 steps in all, 2 before: the learning rate follows the new schedule" in lines
    expected, found = weights_of(whole), weights_of(more)
    assert all(torch.equal(weight, found[name]) for name, weight in expected.items())
    rows = [json.loads(row)["step"] for row in read_rows(tmp_path / "more" / "log.jsonl")]
    assert rows == [1, 2, 3, 4, 5, 6]


def test_a_longer_cosine_goes_on_at_the_rate_of_the_longer_one(tuning: Data, tmp_path: Path) -> None:
    options = {"schedule": "cosine", "learning_rate": 1e-3}
    finetune.run(tuning.config(tmp_path / "short", epochs=1, **options), say=quiet)
    finetune.run(tuning.config(tmp_path / "short", epochs=2, **options), resume=True, say=quiet)
    finetune.run(tuning.config(tmp_path / "long", epochs=2, **options), say=quiet)
    short, long = (
        [json.loads(row)["learning_rate"]["language"] for row in read_rows(tmp_path / name / "log.jsonl")]
        for name in ("short", "long")
    )
    assert short[:2] == pytest.approx([1e-3, 5e-4]) and short[2:] == long[2:] != []


def test_more_epochs_of_a_run_with_feedback_keep_its_last_share(tuning: Data, tmp_path: Path) -> None:
    write_rows(tmp_path / "ratings.jsonl", tuning.rows[:5])
    write_rows(tmp_path / "talks.jsonl", tuning.rows[5:])
    held = write_rows(tmp_path / "held.jsonl", tuning.rows)
    (tmp_path / "mix.yaml").write_text("datasets: [{json_path: ratings.jsonl}, {json_path: talks.jsonl}]")
    options = {"data": str(tmp_path / "mix.yaml"), "validation": str(held), "balance": "feedback"}
    options |= {"balance_lambda": 0.01, "learning_rate": 1e-4}
    for epochs in (2, 4):
        finetune.run(tuning.config(tmp_path / "out", epochs=epochs, **options), resume=epochs > 2, say=quiet)
    history = json.loads((tmp_path / "out" / "balance.json").read_text(encoding="utf-8"))["history"]
    assert [entry["epoch"] for entry in history] == [0, 2]
    assert history[1]["share"] == history[0]["next_share"]


def test_a_run_ends_early_where_validation_gets_no_better(tuning: Data, tmp_path: Path) -> None:
    """A learning rate that ruins the model: its first validations are its best."""
    held = write_rows(tmp_path / "held.jsonl", tuning.rows)
    options = {"max_steps": 40, "validation": str(held), "validate_every": 1, "learning_rate": 5e-2}
    config = tuning.config(tmp_path / "out", **options, early_stopping=2)
    lines: list[str] = []
    folder = finetune.run(config, say=lines.append)
    journal = [json.loads(row) for row in read_rows(tmp_path / "out" / "validation.jsonl")]
    assert len(journal) < 40 and [row["best"] for row in journal[-3:]] == [True, False, False]
    assert f"stopped at step {len(journal)}: no better validation in the last 2" in lines
    assert newest(tmp_path / "out" / "checkpoints").name == f"checkpoint-{len(journal)}"
    before = load_file(folder / "model.safetensors")
    again = load_file(finetune.run(config, resume=True, say=quiet) / "model.safetensors")
    assert all(torch.equal(weight, again[name]) for name, weight in before.items())
    assert len(read_rows(tmp_path / "out" / "validation.jsonl")) == len(journal)


@pytest.mark.parametrize(
    ("variable", "message"),
    [
        ("ACCELERATE_USE_FSDP", "FSDP needs GPUs, and this run is on the CPU: use torchrun or ddp.yaml there"),
        ("ACCELERATE_USE_DEEPSPEED", "DeepSpeed is not supported: shard the model with FSDP"),
    ],
)
def test_what_would_silently_be_something_else_is_refused(tuning, tmp_path, monkeypatch, variable, message) -> None:
    monkeypatch.setenv(variable, "true")
    with pytest.raises(ConfigError, match=message):
        finetune.run(tuning.config(tmp_path / "out"), say=quiet)


def test_a_damaged_image_is_found_after_the_steps_before_it_are_saved(tuning: Data, tmp_path: Path) -> None:
    """The row order of this seed is that of an uninterrupted run, so the result must be, too."""
    for picture in tuning.pictures:
        (tmp_path / picture.name).write_bytes(picture.read_bytes())
    options = {"images": str(tmp_path), "batch_size": 1, "epochs": 2, "save_every": 100}
    whole = finetune.run(tuning.config(tmp_path / "whole", **options), say=quiet)
    order = list(finetune.prepare(tuning.config(tmp_path / "none", **options), say=quiet).loop.sampler)
    damaged = tmp_path / tuning.rows[order[3]].images[0]
    content = damaged.read_bytes()
    damaged.write_bytes(content[: len(content) // 2])
    config = tuning.config(tmp_path / "out", **options)
    with pytest.raises(ConfigError, match="cannot be decoded"):
        finetune.run(config, say=quiet)
    first = min(step for step, row in enumerate(order) if tuning.rows[row].images[0] == damaged.name)
    assert first > 0 and newest(tmp_path / "out" / "checkpoints").name == f"checkpoint-{first}"
    damaged.write_bytes(content)
    expected, found = weights_of(whole), weights_of(finetune.run(config, resume=True, say=quiet))
    assert all(torch.equal(weight, found[name]) for name, weight in expected.items())


def test_a_run_goes_on_with_the_settings_of_its_adapter_only(tuning: Data, tmp_path: Path) -> None:
    """The folder of the adapter may have moved, but another alpha would scale what is trained."""
    adapter = finetune.run(tuning.config(tmp_path / "first", method="lora", max_steps=1), say=quiet)
    options = {"method": "lora", "adapter": str(adapter), "epochs": 1}
    finetune.run(tuning.config(tmp_path / "out", **options), say=quiet)
    settings = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    (adapter / "adapter_config.json").write_text(json.dumps(settings | {"lora_alpha": 5}), encoding="utf-8")
    with pytest.raises(ConfigError, match="adapter was .*'alpha': 32.*, is .*'alpha': 5"):
        finetune.run(tuning.config(tmp_path / "out", **options | {"epochs": 2}), resume=True, say=quiet)


def test_two_runs_do_not_write_into_one_output(tuning: Data, tmp_path: Path) -> None:
    """The other one is killed with a child of its own, as a run is with the workers that read its images."""
    code = """if True:
        import os, sys, time
        from pathlib import Path
        from qsit_plugin.training.checkpoints import holding
        with holding(Path(sys.argv[1])):
            child = os.fork() if hasattr(os, "fork") else -1
            print(child, flush=True) if child else None
            time.sleep(600)
    """
    config = tuning.config(tmp_path, max_steps=1)
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        child = int(other.stdout.readline())
        with pytest.raises(ConfigError, match="another run is writing into .*: wait for its end, or give another"):
            finetune.run(config, say=quiet)
        other.kill()
        other.wait()
        assert finetune.run(config, say=quiet) == tmp_path / "model"
        if child > 0:
            os.kill(child, signal.SIGKILL)


FAILED_WITH_WORKERS = """
import sys
from qsit_plugin.training import run as finetune
from qsit_plugin.training.config import read_config

try:
    finetune.run(read_config(sys.argv[1]), say=print)
except ValueError as error:
    kept = error  # with the frames of the loader that holds the workers
print("failed", flush=True)
"""


def test_a_process_whose_run_has_failed_ends_although_its_workers_outlive_a_stop(tuning: Data, tmp_path: Path) -> None:
    """At its end Python terminates what it has started by SIGTERM, and waits for it."""
    for picture in tuning.pictures:
        content = picture.read_bytes()
        (tmp_path / picture.name).write_bytes(content if picture.name == "0.png" else content[: len(content) // 2])
    options = {"images": str(tmp_path), "workers": 1, "batch_size": 1}
    config = write_config(tmp_path / "run.yaml", tuning.config(tmp_path / "out", **options))
    command = [sys.executable, "-c", FAILED_WITH_WORKERS, str(config)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0 and done.stdout.endswith("failed\n"), done.stderr
