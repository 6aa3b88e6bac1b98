"""A run that was killed and goes on ends with the very weights of one that was not."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.training.runs import Data, require_training

require_training()

from qsit_plugin.training import run as finetune  # noqa: E402
from qsit_plugin.training.checkpoints import COMPLETE, newest  # noqa: E402
from qsit_plugin.training.config import ConfigError, RunConfig  # noqa: E402
from qsit_plugin.training.data.rows import write_rows  # noqa: E402


class Killed(Exception):
    pass


def quiet(message: str) -> None:
    pass


def run_until(config: RunConfig, step: int) -> None:
    """A run that dies in the middle of a step."""
    prepared = finetune.prepare(config, say=quiet)
    loss = prepared.loop.loss

    def dying(batch, amounts):
        if prepared.loop.done == step:
            raise Killed
        return loss(batch, amounts)

    prepared.loop.loss = dying
    with pytest.raises(Killed):
        finetune.train(prepared)


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(next(folder.glob("*.safetensors")))


# LoRA with dropout: its random numbers must go on, too. Five steps of two batches are two and a half epochs of 6 rows.
METHODS = [{"method": "full"}, {"method": "lora", "lora_dropout": 0.3, "parts": ["language", "projector"]}]


@pytest.mark.parametrize("method", METHODS, ids=["full", "lora"])
def test_a_killed_run_goes_on_bit_for_bit(tuning: Data, tmp_path: Path, method: dict) -> None:
    options = {**method, "max_steps": 7, "save_every": 2, "batch_size": 1, "gradient_accumulation": 2}
    whole = finetune.run(tuning.config(tmp_path / "whole", **options, memory_probe=True), say=quiet)
    config = tuning.config(tmp_path / "killed", **options)
    run_until(config, step=5)
    assert newest(tmp_path / "killed" / "checkpoints").name == "checkpoint-4"
    resumed = finetune.run(config, resume=True, say=quiet)
    expected, found = weights_of(whole), weights_of(resumed)
    assert expected.keys() == found.keys()
    for name, weight in expected.items():
        assert torch.equal(weight, found[name]), name


def test_a_run_that_was_stopped_after_its_last_step_makes_no_other(tuning: Data, tmp_path: Path) -> None:
    """Three steps of an epoch of six: the result is written again, from the same weights."""
    config = tuning.config(tmp_path, max_steps=3, batch_size=1)
    whole = weights_of(finetune.run(config, say=quiet))
    lines: list[str] = []
    again = weights_of(finetune.run(config, resume=True, say=lines.append))
    assert not [line for line in lines if line.startswith("step ")]
    for name, weight in whole.items():
        assert torch.equal(weight, again[name]), name


def test_a_checkpoint_that_was_killed_while_it_was_written_is_passed_over(tmp_path: Path) -> None:
    for step in (2, 4, 10):
        (tmp_path / f"checkpoint-{step}").mkdir()
    assert newest(tmp_path) is None
    for step in (2, 4):
        (tmp_path / f"checkpoint-{step}" / COMPLETE).touch()
    assert newest(tmp_path).name == "checkpoint-4"


def test_a_run_does_not_go_on_with_other_settings_rows_or_weights(tuning: Data, tmp_path: Path) -> None:
    config = tuning.config(tmp_path, max_steps=3, save_every=1)
    run_until(config, step=1)
    with pytest.raises(ConfigError, match="was begun otherwise: learning_rate was 0.003, is 0.1"):
        finetune.run(tuning.config(tmp_path, max_steps=3, learning_rate=0.1), resume=True, say=quiet)
    text = (tuning.folder / "rows.jsonl").read_text(encoding="utf-8").splitlines()
    (tuning.folder / "fewer.jsonl").write_text("\n".join(text[:4]), encoding="utf-8")
    other = tuning.config(tmp_path, max_steps=3, data=str(tuning.folder / "fewer.jsonl"))
    with pytest.raises(ConfigError, match="rows was {'rows'"):
        finetune.run(other, resume=True, say=quiet)


def test_an_output_with_a_run_in_it_is_not_begun_anew(tuning: Data, tmp_path: Path) -> None:
    (tmp_path / finetune.RECORD).write_text("{}", encoding="utf-8")
    with pytest.raises(ConfigError, match="holds a run already: go on with --resume, or give another output"):
        finetune.run(tuning.config(tmp_path), say=quiet)


@pytest.mark.parametrize("content", ["{}", "[]", '{"config": {}}', '{"config": null, "facts": {}}'])
def test_a_record_that_is_none_is_named_where_a_run_goes_on(tuning: Data, tmp_path: Path, content: str) -> None:
    config = tuning.config(tmp_path, max_steps=1)
    finetune.run(config, say=quiet)
    (tmp_path / finetune.RECORD).write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError, match="run.json of the run to go on with is not readable .*: start a new output"):
        finetune.run(config, resume=True, say=quiet)


@pytest.mark.parametrize("name", ["trained.safetensors", "optimizer.pt", "rng_state.pth", "trainer_state.json"])
def test_a_checkpoint_with_a_damaged_file_is_named_and_the_one_before_still_serves(
    tuning: Data, tmp_path: Path, name: str
) -> None:
    config = tuning.config(tmp_path, max_steps=2, save_every=1)
    whole = weights_of(finetune.run(config, say=quiet))
    last = tmp_path / "checkpoints" / "checkpoint-2"
    (last / name).write_bytes((last / name).read_bytes()[:-20])
    with pytest.raises(ConfigError, match="checkpoint-2 is damaged .*: delete it, and --resume goes on from the one"):
        finetune.run(config, resume=True, say=quiet)
    shutil.rmtree(last)
    again = weights_of(finetune.run(config, resume=True, say=quiet))
    assert all(torch.equal(weight, again[name]) for name, weight in whole.items())


def test_what_a_killed_run_left_of_a_checkpoint_is_removed(tuning: Data, tmp_path: Path) -> None:
    """Killed while an old checkpoint was removed, or one was written of a step at which no other is saved."""
    left = tmp_path / "checkpoints" / "checkpoint-1"
    left.mkdir(parents=True)
    (left / "optimizer.pt").touch()
    finetune.run(tuning.config(tmp_path, max_steps=2), say=quiet)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["checkpoint-2"]


def test_a_copy_of_a_checkpoint_under_another_name_is_left_alone(tuning: Data, tmp_path: Path) -> None:
    config = tuning.config(tmp_path, max_steps=1)
    finetune.run(config, say=quiet)
    copy = tmp_path / "checkpoints" / "checkpoint-1-copy"
    shutil.copytree(tmp_path / "checkpoints" / "checkpoint-1", copy)
    finetune.run(tuning.config(tmp_path, max_steps=2, keep_checkpoints=1), resume=True, say=quiet)
    assert (copy / COMPLETE).is_file() and newest(tmp_path / "checkpoints").name == "checkpoint-2"


def test_a_run_does_not_go_on_to_fewer_steps_than_it_has_made(tuning: Data, tmp_path: Path) -> None:
    """Its result would be that of more steps than the settings say."""
    finetune.run(tuning.config(tmp_path, max_steps=3), say=quiet)
    with pytest.raises(ConfigError, match="has made 3 steps already, and the settings give 2 in all"):
        finetune.run(tuning.config(tmp_path, max_steps=2), resume=True, say=quiet)


def test_there_is_no_result_of_a_run_that_was_not_trained(tuning: Data, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="nothing is trained yet: call train first"):
        finetune.finish(finetune.prepare(tuning.config(tmp_path), say=quiet))
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    ("largest", "options", "said"),
    [
        (200_000, {}, "checkpoints/checkpoint-2 "),
        (400_000, {}, "checkpoints/checkpoint-2 "),  # the weights fit, the optimizer does not
        (200_000, {"validate_every": 1}, "best.new "),
        (200_000, {"method": "lora", "lora_rank": 1, "result": "merged"}, "model "),
    ],
    ids=["weights", "optimizer", "best", "result"],
)
def test_a_file_that_cannot_be_written_whole_is_said_with_the_cure(
    tuning: Data, tmp_path: Path, largest: int, options: dict, said: str
) -> None:
    """As on a full disk: here by the system's limit on the size of a file."""
    resource = pytest.importorskip("resource", reason="Windows has no such limit")
    if "validate_every" in options:
        options = options | {"validation": str(write_rows(tmp_path / "held.jsonl", tuning.rows))}
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest, before[1]))
    try:
        with pytest.raises(OSError, match=f"cannot write .*{said}.*File too large.*: free some space, and go on with"):
            finetune.run(tuning.config(tmp_path / "out", max_steps=2, **options), say=quiet)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
