"""The fine stage of the balance strategy: the share of ratings follows the validation losses, and survives a stop."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.training.runs import Data, require_training, rows_read, talk

require_training()

from qsit_plugin.training import run as finetune  # noqa: E402
from qsit_plugin.training.config import ConfigError, RunConfig  # noqa: E402
from qsit_plugin.training.data.mixture import read_mixture  # noqa: E402
from qsit_plugin.training.data.rows import write_rows  # noqa: E402
from qsit_plugin.training.validation.feedback import Balance, moved, with_share  # noqa: E402
from tests.training.test_finetune_devices import by_torchrun, write_config  # noqa: E402
from tests.training.test_finetune_resume import quiet, run_until, weights_of  # noqa: E402

BOUNDS = (0.05, 0.95)


@pytest.fixture(scope="module")
def mixture(tuning: Data) -> Path:
    """A mixture of five ratings and five conversations; held.jsonl beside it has them all."""
    talks = [replace(talk(), id=f"talk{number}", image=f"{number}.png") for number in range(5)]
    write_rows(tuning.folder / "ratings.jsonl", tuning.rows[:5])
    write_rows(tuning.folder / "talks.jsonl", talks)
    write_rows(tuning.folder / "held.jsonl", [*tuning.rows[:5], *talks])
    path = tuning.folder / "mixture.yaml"
    path.write_text("datasets:\n  - json_path: ratings.jsonl\n  - json_path: talks.jsonl\n", encoding="utf-8")
    return path


def settings(mixture: Path, **changes) -> dict:
    """Epochs of two steps of five rows."""
    return {
        "data": str(mixture),
        "validation": str(mixture.parent / "held.jsonl"),
        "batch_size": 5,
        "epochs": 4,
        "balance": "feedback",
        "balance_lambda": 0.01,
        "balance_step": 0.2,
    } | changes


def history(output: Path) -> list[dict]:
    return json.loads((output / "balance.json").read_text(encoding="utf-8"))["history"]


@pytest.mark.parametrize(
    ("ratio", "expected"), [(4.0, 0.55), (2.0, 0.55), (2**0.5, 0.525), (1.0, 0.5), (0.5, 0.45), (0, 0.45)]
)
def test_the_share_moves_towards_the_loss_that_is_too_high(ratio: float, expected: float) -> None:
    assert moved(0.5, ratio, 1.0, step=0.05, bounds=BOUNDS) == pytest.approx(expected)


def test_the_share_stays_within_its_bounds() -> None:
    assert moved(0.94, float("inf"), 1.0, step=0.05, bounds=BOUNDS) == 0.95
    assert moved(0.06, 0.1, 1.0, step=0.05, bounds=BOUNDS) == 0.05


def test_shares_within_the_two_groups_keep_their_proportion() -> None:
    found = with_share({"koniq": 0.1, "spaq": 0.3, "q_instruct": 0.4, "llava": 0.2}, ("koniq", "spaq"), 0.6)
    assert found == pytest.approx({"koniq": 0.15, "spaq": 0.45, "q_instruct": 0.8 / 3, "llava": 0.4 / 3})


@pytest.mark.parametrize(("target", "shares"), [(0.01, [0.5, 0.7, 0.9, 0.9]), (100.0, [0.5, 0.3, 0.1, 0.1])])
def test_every_epoch_has_the_share_that_the_one_before_led_to(tuning, mixture, tmp_path, target, shares) -> None:
    bounds = [0.1, 0.9]
    config = tuning.config(tmp_path, **settings(mixture, balance_lambda=target, balance_bounds=bounds))
    lines: list[str] = []
    prepared = finetune.prepare(config, say=lines.append)
    seen = rows_read(prepared.dataset)
    finetune.train(prepared)
    ratings = [sum(index < 5 for index in seen[start : start + 10]) for start in range(0, 40, 10)]
    assert ratings == [round(10 * share) for share in shares]
    found = history(tmp_path)
    assert [(entry["epoch"], entry["step"]) for entry in found] == [(0, 2), (1, 4), (2, 6)]
    assert [entry["share"] for entry in found] == pytest.approx(shares[:3])
    assert [entry["next_share"] for entry in found] == pytest.approx(shares[1:])
    validated = [json.loads(line) for line in (tmp_path / "validation.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["score_loss"] for line in validated[:3]] == [entry["score_loss"] for entry in found]
    ratio = found[0]["score_loss"] / found[0]["interpret_loss"]
    said = f"epoch 1: score loss / interpret loss {ratio:.3f}, lambda {target:.3f}; share of ratings 0.500, then "
    assert any(line.startswith(said) for line in lines)


@pytest.mark.parametrize(("save_every", "killed_at"), [(3, 5), (2, 5)], ids=["middle", "end"])
def test_a_killed_run_goes_on_bit_for_bit_with_its_shares(tuning, mixture, tmp_path, save_every, killed_at) -> None:
    options = settings(mixture, save_every=save_every, balance_bounds=[0.1, 0.9])
    whole = finetune.run(tuning.config(tmp_path / "whole", **options), say=quiet)
    config = tuning.config(tmp_path / "killed", **options)
    run_until(config, step=killed_at)
    resumed = finetune.run(config, resume=True, say=quiet)
    expected, found = weights_of(whole), weights_of(resumed)
    assert all(torch.equal(weight, found[name]) for name, weight in expected.items())
    assert history(tmp_path / "killed") == history(tmp_path / "whole")
    assert len({entry["next_share"] for entry in history(tmp_path / "whole")}) > 1


def test_a_run_whose_history_is_lost_does_not_go_on(tuning: Data, mixture: Path, tmp_path: Path) -> None:
    config = tuning.config(tmp_path, **settings(mixture, save_every=1))
    run_until(config, step=5)
    (tmp_path / "balance.json").unlink()
    with pytest.raises(ConfigError, match="balance.json holds 0 of the 2 shares that this run has had: put the file"):
        finetune.run(config, resume=True, say=quiet)


SHARES_OF_A_PROCESS = """
import json, os, sys
from qsit_plugin.training import run as finetune
from qsit_plugin.training.config import read_config

prepared = finetune.prepare(read_config(sys.argv[1]), say=print)
finetune.train(prepared)
with open(sys.argv[2] + os.environ["RANK"], "w", encoding="utf-8") as stream:
    json.dump(prepared.loop.sampler.state_dict()["shares"], stream)
"""


def test_two_processes_move_to_the_same_share(tuning: Data, mixture: Path, tmp_path: Path) -> None:
    """By torchrun, on the CPU: one process validates and decides, both deal out the rows of the new share."""
    config = tuning.config(tmp_path / "out", **settings(mixture, epochs=2))
    (tmp_path / "run.py").write_text(SHARES_OF_A_PROCESS, encoding="utf-8")
    command = [str(tmp_path / "run.py"), str(write_config(tmp_path / "run.yaml", config)), str(tmp_path / "shares")]
    status, out, err = by_torchrun(command, tmp_path)
    assert status == 0, err
    assert [out.count(f"validation at step {step}, 10 rows") for step in (1, 2)] == [1, 1]
    first, second = (json.loads((tmp_path / f"shares{rank}").read_text(encoding="utf-8")) for rank in (0, 1))
    assert first == second
    [entry] = history(tmp_path / "out")
    assert first[-1] == [1, entry["next_shares"]] and entry["next_share"] == pytest.approx(0.7)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"validation": None}, "balance: feedback needs validation, a file of rows"),
        ({"balance_lambda": None}, "balance: feedback needs balance_lambda above 0: score loss divided by"),
        ({"balance_bounds": [0.9, 0.1]}, r"balance_bounds is \[0.9, 0.1\]: give two shares, 0 < low < high < 1"),
        ({"balance_bounds": [0.1]}, r"balance_bounds is \[0.1\]: it must be two numbers, as in \[0.05, 0.95\]"),
        ({"balance_step": 0}, "balance_step is 0: it must be above 0"),
        ({"balance": "fast"}, "balance is 'fast': give one of feedback"),
        ({"balance": None}, "balance_lambda is that of balance: feedback: add this, or take balance_lambda out"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(tuning, mixture, tmp_path, changes, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        tuning.config(tmp_path, **settings(mixture, **changes))


def test_validation_settings_without_rows_are_refused(tuning: Data, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="validate_every needs validation, a file of rows"):
        tuning.config(tmp_path, validate_every=5)


def refused(tuning: Data, tmp_path: Path, **changes) -> str:
    with pytest.raises(ConfigError) as caught:
        finetune.run(tuning.config(tmp_path / "out", **changes), say=quiet)
    assert not (tmp_path / "out").exists()
    return str(caught.value)


def test_sources_that_cannot_be_weighed_against_each_other_stop_the_run(tuning, mixture, tmp_path) -> None:
    mixed = refused(tuning, tmp_path, **settings(mixture, data=str(tuning.folder / "held.jsonl")))
    assert "balance: held has ratings and conversations, so its share moves neither way" in mixed
    alone = refused(tuning, tmp_path, **settings(mixture, data=str(tuning.folder / "ratings.jsonl")))
    assert "data has only sources of ratings (ratings): give a mixture (.yaml) of both" in alone
    unknown = refused(tuning, tmp_path, **settings(mixture, scoring_sources=["koniq"]))
    assert "scoring_sources: no source 'koniq'; there are ratings, talks" in unknown
    outside = refused(tuning, tmp_path, **settings(mixture, shares={"ratings": 0.99, "talks": 0.01}))
    assert "the share of ratings begins at 0.990, outside balance_bounds [0.05, 0.95]" in outside


def test_validation_rows_without_one_of_the_tasks_stop_the_run(tuning: Data, mixture: Path, tmp_path: Path) -> None:
    found = refused(tuning, tmp_path, **settings(mixture, validation=str(tuning.folder / "ratings.jsonl")))
    assert "the 5 validation rows have no task 'interpret': add such rows to" in found


def test_losses_that_are_not_numbers_are_no_base_for_a_share(tuning: Data, mixture: Path, tmp_path: Path) -> None:
    found = read_mixture(mixture)
    balance = Balance(RunConfig(**vars(tuning.config(tmp_path, **settings(mixture)))), found, found.sampler())
    with pytest.raises(
        ConfigError, match="losses are nan and 1.0: the training has diverged; begin again with a lower learning_rate"
    ):
        balance.entry(float("nan"), 1.0, step=2)
    assert balance.entry(1.0, 0.0, step=2)["next_share"] == pytest.approx(0.7)
