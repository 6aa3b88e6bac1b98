"""Validation during a run: it leaves no trace in the training, keeps the best state, and survives a stop."""

import json
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.training.runs import Data, require_training

require_training()

import qsit_plugin  # noqa: E402
from qsit_plugin.training import run as finetune  # noqa: E402
from qsit_plugin.training.config import ConfigError  # noqa: E402
from qsit_plugin.training.data.rows import TrainingRow, write_rows  # noqa: E402
from qsit_plugin.training.validation import best, validate  # noqa: E402
from qsit_plugin.training.validation.callback import reading  # noqa: E402
from qsit_plugin.training.validation.subset import stratified  # noqa: E402
from tests.training.test_finetune_resume import quiet, run_until, weights_of  # noqa: E402


def choice(image: str, answer: str, text: str = "Is it noisy?\nA. Yes\nB. No") -> TrainingRow:
    messages = [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": text}]},
        {"role": "assistant", "content": [{"type": "text", "text": answer}]},
    ]
    return TrainingRow(f"{image}-{answer}", image, "interpret", messages, source="talk")


@pytest.fixture(scope="module")
def held(tuning: Data) -> Path:
    """Validation rows: the five ratings, two choices and a conversation."""
    rows = [*tuning.rows, choice("0.png", "A"), choice("1.png", "B")]
    return write_rows(tuning.folder / "held.jsonl", rows)


def journal(output: Path) -> list[dict]:
    return [json.loads(line) for line in (output / "validation.jsonl").read_text(encoding="utf-8").splitlines()]


FULL_AND_LORA = [{"method": "full"}, {"method": "lora", "learning_rate": 1e-2}]
METHODS = [
    {"method": "full"},
    {"method": "lora", "lora_dropout": 0.3, "parts": ["language", "projector"]},
    {"method": "lora", "lora_dropout": 0.3, "precision": "bf16", "gradient_checkpointing": True},
]


@pytest.mark.parametrize("method", METHODS, ids=["full", "lora", "bf16"])
def test_a_run_with_validation_gives_the_very_weights_of_one_without(tuning, held, tmp_path: Path, method) -> None:
    options = {**method, "max_steps": 3, "batch_size": 2}
    plain = finetune.run(tuning.config(tmp_path / "plain", **options), say=quiet)
    watched = finetune.run(
        tuning.config(tmp_path / "watched", **options, validation=str(held), validate_every=1), say=quiet
    )
    expected, found = weights_of(plain), weights_of(watched)
    for name, weight in expected.items():
        assert torch.equal(weight, found[name]), name
    assert [line["step"] for line in journal(tmp_path / "watched")] == [1, 2, 3]


def test_modes_and_random_states_are_as_before(tuning: Data, held: Path, tmp_path: Path) -> None:
    prepared = finetune.prepare(tuning.config(tmp_path, method="lora", lora_dropout=0.3), say=quiet)
    model = prepared.model.train()
    model.get_submodule("base_model.model.model.vision_tower").eval()
    modes = [module.training for module in model.modules()]
    before = (torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist())
    with reading(prepared.loop, prepared.checkpoint) as live:
        validate(live, tuning.rows, tuning.folder)
        assert not any(module.training for module in model.modules())
    assert [module.training for module in model.modules()] == modes
    after = (torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist())
    assert torch.equal(before[0], after[0]) and before[1:] == after[1:]


@pytest.mark.parametrize(
    "method", [{"method": "full"}, {"method": "lora", "learning_rate": 1e-2}], ids=["full", "lora"]
)
def test_figures_are_those_of_the_model_that_is_written(tuning: Data, held: Path, tmp_path: Path, method) -> None:
    lines: list[str] = []
    config = tuning.config(tmp_path, **method, epochs=2, validation=str(held))
    folder = finetune.run(config, say=lines.append)
    found = journal(tmp_path)
    assert [line["step"] for line in found] == [2, 4]
    written = {"adapter": folder} if method["method"] == "lora" else {}
    model = qsit_plugin.load(tuning.base if written else folder, device="cpu", dtype="float32", **written)
    rows = [*tuning.rows, choice("0.png", "A"), choice("1.png", "B")]
    expected = validate(model, rows, tuning.folder).to_dict()
    for name in ("srcc", "plcc", "score_loss", "interpret_loss", "accuracy", "level_mass"):
        assert found[-1][name] == pytest.approx(expected[name], rel=1e-4), name
    assert found[-1]["final"] and not found[0]["final"]
    assert any(line.startswith("validation at step 4, 8 rows: SRCC ") for line in lines)
    assert "5 of the 5 validation images are trained on: figures on them say little" in lines


def test_the_best_state_is_kept_not_the_last(tuning: Data, tmp_path: Path) -> None:
    """A learning rate that ruins the model after a good step."""
    held = write_rows(tmp_path / "held.jsonl", tuning.rows)
    config = tuning.config(tmp_path, max_steps=6, validation=str(held), validate_every=1, learning_rate=2e-2)
    finetune.run(config, say=quiet)
    lines = journal(tmp_path)
    expected = max(lines, key=lambda line: line["goal"])
    assert expected["step"] < 6 and expected["goal"] > lines[0]["goal"]
    assert [line["step"] for line in lines if line["best"]][-1] == expected["step"]
    about = json.loads((tmp_path / "best" / "validation.json").read_text(encoding="utf-8"))
    assert about == expected
    model = qsit_plugin.load(tmp_path / "best", device="cpu", dtype="float32")
    figures = validate(model, tuning.rows, tuning.folder)
    assert figures.score_loss == pytest.approx(expected["score_loss"], rel=1e-4)


def test_between_equal_goals_the_lower_losses_decide() -> None:
    line = {"goal": 0.0, "score_loss": 1.0, "interpret_loss": 2.0}
    assert best.rank({**line, "score_loss": 0.5}) > best.rank(line) < best.rank({**line, "interpret_loss": None})
    assert best.rank({**line, "goal": 0.1, "score_loss": 9.0}) > best.rank(line)


def test_a_resumed_run_has_every_line_once_and_remembers_the_best(tuning: Data, held: Path, tmp_path: Path) -> None:
    options = {"max_steps": 7, "save_every": 2, "validation": str(held), "validate_every": 1, "validate_rows": 6}
    finetune.run(tuning.config(tmp_path / "whole", **options), say=quiet)
    config = tuning.config(tmp_path / "killed", **options)
    run_until(config, step=5)
    with (tmp_path / "killed" / "validation.jsonl").open("a", encoding="utf-8") as stream:
        stream.write('{"step": 6, "torn')
    finetune.run(config, resume=True, say=quiet)
    assert journal(tmp_path / "killed") == journal(tmp_path / "whole")
    whole, killed = (load_file(tmp_path / name / "best" / "model.safetensors") for name in ("whole", "killed"))
    assert all(torch.equal(weight, killed[name]) for name, weight in whole.items())
    assert [line["rows"] for line in journal(tmp_path / "killed")] == [6] * 7 + [8]


def test_tensorboard_gets_the_figures_and_loses_no_loss(tuning: Data, held: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is optional")
    lines: list[str] = []
    config = tuning.config(tmp_path, max_steps=2, tensorboard=True, validation=str(held), validate_every=1)
    finetune.run(config, say=lines.append)
    assert sum(line.startswith("step ") for line in lines) == 2
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [event.step for event in events.Scalars("eval/score_loss")] == [1, 2]


def test_the_goal_is_the_harmonic_mean_of_what_there_is(tuning: Data) -> None:
    model = qsit_plugin.load(tuning.base, device="cpu")
    figures = replace(validate(model, tuning.rows, tuning.folder), srcc=0.9, plcc=0.7, accuracy=0.7, chance=0.4)
    assert best.goal(figures) == pytest.approx(2 / (1 / 0.8 + 1 / 0.5))
    assert best.goal(replace(figures, accuracy=None)) == pytest.approx(0.8)
    assert best.goal(replace(figures, accuracy=0.3)) == 0.0
    assert best.goal(replace(figures, srcc=None, plcc=None)) == 0.0  # five ratings, but all scores equal
    few = replace(figures, srcc=None, plcc=None, counts={**figures.counts, "score": 2})
    assert best.goal(few) == pytest.approx(0.5)
    assert best.goal(replace(few, accuracy=None)) is None


def test_a_subset_has_both_tasks_and_all_levels_and_is_the_same_every_time(tuning: Data) -> None:
    model = qsit_plugin.load(tuning.base, device="cpu")
    ratings = [replace(row, id=f"{row.id}-{number}") for number in range(20) for row in tuning.rows[:5]]
    rows = ratings + [choice("0.png", "A")] * 30 + [choice("1.png", "B", "How is it?\nA. dark\nB. light")] * 10
    found = stratified(rows, 40, model.profile, seed=0)
    assert found == stratified(rows, 40, model.profile, seed=0) != stratified(rows, 40, model.profile, seed=1)
    assert [sum(row.id.startswith(f"{number}.png->") for row in found) for number in range(5)] == [4] * 5
    assert (found.count(rows[100]), found.count(rows[-1])) == (15, 5)
    assert stratified(rows[:104], 10, model.profile, seed=0).count(rows[100]) == 4  # all four that there are
    assert stratified(rows[:5], 200, model.profile, seed=0) == rows[:5]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([choice("0.png", "C")], r"validation: row 0.png-C: the answer 'C' is none of its options Yes, No"),
        ([choice("9.png", "A")], r"(?s)validation, .*bad.jsonl:\nmissing image: 1:.*9.png is not in"),
    ],
)
def test_rows_that_cannot_be_validated_on_stop_the_run(tuning: Data, tmp_path: Path, rows, message: str) -> None:
    path = write_rows(tmp_path / "bad.jsonl", rows)
    with pytest.raises(ConfigError, match=message):
        finetune.run(tuning.config(tmp_path / "out", validation=str(path)), say=quiet)
    assert not (tmp_path / "out").exists()


def test_a_training_that_has_diverged_is_named_as_such(tuning: Data, held: Path, tmp_path: Path) -> None:
    prepared = finetune.prepare(tuning.config(tmp_path, max_steps=1, validation=str(held)), say=quiet)
    torch.nn.init.constant_(prepared.checkpoint.model.model.language_model.norm.weight, float("nan"))
    with pytest.raises(ConfigError, match="at step 1 the scores are no longer finite: the training has diverged;"):
        finetune.train(prepared)


def test_a_validation_file_that_is_not_there_is_named(tuning: Data, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="validation: no file absent.jsonl; qsit train convert writes one"):
        finetune.run(tuning.config(tmp_path / "out", validation="absent.jsonl"), say=quiet)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            {"▁": 0, "A": 1, "B": 2},
            "multiple-choice answers cannot be read: 'A' is 2 tokens .*; take multiple-choice questions",
        ),
        (
            {"▁A": 0, "[UNK]": 1},
            r"cannot be read: the letters A, B, C are tokens \[0, 1, 1\]; take multiple-choice questions",
        ),
    ],
)
def test_letters_that_are_not_one_token_each_are_refused(words: dict[str, int], message: str) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    from qsit_plugin.chat import Conversation
    from qsit_plugin.training.data.inputs import check_letters

    kind = models.WordLevel(words, "[UNK]") if "[UNK]" in words else models.BPE(words, [])
    backend = Tokenizer(kind)
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    with pytest.raises(ConfigError, match=message):
        check_letters(Conversation(PreTrainedTokenizerFast(tokenizer_object=backend), "", 0), 3)
