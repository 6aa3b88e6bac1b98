"""What a run reports: lines, log.jsonl, trackers and curves."""

import json
from pathlib import Path

import pytest

from qsit_plugin.row_file import read_rows
from tests.training.runs import Data, require_training

require_training()

from qsit_plugin.training import run as finetune  # noqa: E402
from qsit_plugin.training.config import ConfigError  # noqa: E402
from qsit_plugin.training.data.rows import write_rows  # noqa: E402
from qsit_plugin.training.plots import draw_curves  # noqa: E402
from qsit_plugin.training.run_log import speed_text  # noqa: E402
from tests.training.test_finetune_resume import quiet, run_until  # noqa: E402


def test_learning_rates_are_named_where_they_differ(tuning: Data, tmp_path: Path) -> None:
    lines: list[str] = []
    finetune.run(tuning.config(tmp_path / "a", max_steps=1, projector_learning_rate=0.002), say=lines.append)
    [line] = [line for line in lines if line.startswith("step ")]
    assert "learning rate projector 0.002, vision 0.001, language 0.003  " in line
    [row] = [json.loads(row) for row in read_rows(tmp_path / "a" / "log.jsonl")]
    assert row["learning_rate"] == {"projector": 0.002, "vision": 0.001, "language": 0.003}
    lines.clear()
    finetune.run(tuning.config(tmp_path / "b", max_steps=1, method="lora"), say=lines.append)
    assert any("  learning rate 0.003  " in line for line in lines)


def test_a_row_has_the_mean_loss_of_the_steps_since_the_last(tuning: Data, tmp_path: Path) -> None:
    for name, every in (("each", 1), ("third", 3)):
        finetune.run(tuning.config(tmp_path / name, max_steps=6, log_every=every), say=quiet)
    each, third = ([json.loads(row) for row in read_rows(tmp_path / n / "log.jsonl")] for n in ("each", "third"))
    assert [row["step"] for row in third] == [3, 6]
    assert third[1]["loss"] == pytest.approx(sum(row["loss"] for row in each[3:]) / 3)
    assert third[1]["epoch"] == 3.0


def test_a_resumed_run_has_every_row_once(tuning: Data, tmp_path: Path) -> None:
    config = tuning.config(tmp_path, max_steps=6, save_every=2)
    run_until(config, step=5)
    finetune.run(config, resume=True, say=quiet)
    assert [json.loads(row)["step"] for row in read_rows(tmp_path / "log.jsonl")] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("line", ['{"loss": 1.0}', "[]", "not json"])
def test_a_log_that_was_edited_by_hand_is_refused_with_its_line(line: str, tuning: Data, tmp_path: Path) -> None:
    config = tuning.config(tmp_path, max_steps=4, save_every=2)
    run_until(config, step=3)
    rows = (tmp_path / "log.jsonl").read_text(encoding="utf-8").splitlines()
    (tmp_path / "log.jsonl").write_text("\n".join([rows[0], line, *rows[1:]]) + "\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"log\.jsonl, line 2 is no row of a log .* take it out"):
        finetune.run(config, resume=True, say=quiet)


def test_report_to_tensorboard_has_losses_rates_and_settings(tuning: Data, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is optional")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    finetune.run(tuning.config(tmp_path, max_steps=2, report_to=["tensorboard"]), say=quiet)
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [event.step for event in events.Scalars("train/loss")] == [1, 2]
    assert events.Scalars("train/learning_rate/vision")[0].value == pytest.approx(1e-3)
    assert list((tmp_path / "tensorboard").rglob("hparams.yml"))


def test_a_run_that_fails_leaves_its_figures_to_the_trackers(tuning: Data, tmp_path: Path, monkeypatch) -> None:
    """TensorBoard keeps them for two minutes, and other trackers would write the next run's into this one's."""
    tracking = pytest.importorskip("accelerate.tracking")
    pytest.importorskip("tensorboard", reason="tensorboard is optional")
    finished: list[str] = []
    monkeypatch.setattr(tracking.TensorBoardTracker, "finish", lambda tracker: finished.append(tracker.run_name))
    run_until(tuning.config(tmp_path, max_steps=3, report_to=["tensorboard"]), step=2)
    assert finished == ["tensorboard"]


def test_the_speed_is_read_without_powers_of_ten() -> None:
    assert [speed_text(rows) for rows in (0.123, 3.21, 123.4, 12345.6)] == [
        "0.12 rows/s",
        "3.2 rows/s",
        "123 rows/s",
        "12,346 rows/s",
    ]


def test_a_tracker_that_is_not_installed_is_named_before_the_first_step(tuning: Data, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="report_to: aim is not installed: pip install aim, or take it out"):
        finetune.run(tuning.config(tmp_path / "out", report_to=["aim"]), say=quiet)
    assert not (tmp_path / "out").exists()


def test_curves_of_losses_rates_and_validation_are_drawn(tuning: Data, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is optional")
    from PIL import Image

    lines: list[str] = []
    held = write_rows(tmp_path / "held.jsonl", tuning.rows)
    config = tuning.config(tmp_path / "out", max_steps=4, validation=str(held), validate_every=2)
    finetune.run(config, say=lines.append)
    picture = tmp_path / "out" / "training.png"
    assert f"written: {picture}" in lines
    with Image.open(picture) as image:
        assert image.width > 3 * image.height  # four panels side by side
    assert draw_curves(tmp_path) is None  # nothing was logged there
