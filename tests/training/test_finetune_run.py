"""Whole runs on a tiny model: what is trained, what is learned, what comes out, and what stops a run at once."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from qsit_plugin.row_file import read_rows
from tests.training.runs import RATINGS, Data, require_training, rows_read

require_training()

import qsit_plugin  # noqa: E402
from qsit_plugin.checkpoint import open_checkpoint  # noqa: E402
from qsit_plugin.training import run as finetune  # noqa: E402
from qsit_plugin.training.config import ConfigError  # noqa: E402
from qsit_plugin.training.export import result_profile  # noqa: E402
from qsit_plugin.training.parameters import check_groups, parameter_groups, part_of  # noqa: E402


def lines_of(config, **options) -> tuple[Path, list[str]]:
    lines: list[str] = []
    return finetune.run(config, say=lines.append, **options), lines


def logged(output: Path) -> list[dict]:
    return [json.loads(row) for row in read_rows(output / "log.jsonl")]


def steps_of(config) -> list[tuple[float, float]]:
    """(loss, norm of the gradient) of every step."""
    finetune.run(config, say=print)
    return [(row["loss"], row["grad_norm"]) for row in logged(Path(config.output))]


def losses_in(lines: list[str]) -> list[float]:
    return [float(line.split("loss ")[1].split()[0]) for line in lines if line.startswith("step ")]


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(next(folder.glob("*.safetensors")))


def changed_parts(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    names = {name for name in before if not torch.equal(before[name], after[name])}
    return {part_of(name + ".") for name in names}


def in_order(folder: Path, tuning: Data, **options) -> list[float]:
    return [score.value for score in qsit_plugin.load(folder, device="cpu", **options).score(tuning.pictures)]


def test_full_fine_tuning_makes_the_model_score_as_the_images_are_rated(tuning: Data, tmp_path: Path) -> None:
    before = in_order(tuning.base, tuning)
    assert before != sorted(before, reverse=True)
    folder, lines = lines_of(tuning.config(tmp_path, max_steps=90, level_loss="soft+rank"))
    losses = losses_in(lines)
    assert len(losses) == 90
    assert sum(losses[-5:]) < 0.2 * sum(losses[:5])
    after = in_order(folder, tuning)
    assert after == sorted(after, reverse=True)
    assert max(abs(value - mos / 100) for value, mos in zip(after, RATINGS, strict=True)) < 0.15
    assert qsit_plugin.load(folder, device="cpu").ask(tuning.pictures[0], "Is it noisy?").text == "It is noisy."
    record = json.loads((tmp_path / "run.json").read_text(encoding="utf-8"))
    assert record["config"]["level_loss"] == "soft+rank"
    assert {"qsit-plugin", "torch", "transformers", "peft", "accelerate"} == record["versions"].keys()


def test_every_row_is_trained_on_once_an_epoch(tuning: Data, tmp_path: Path) -> None:
    prepared = finetune.prepare(tuning.config(tmp_path, epochs=2, batch_size=1, gradient_accumulation=2), say=print)
    seen = rows_read(prepared.dataset)
    finetune.train(prepared)
    assert prepared.loop.done == 6
    assert sorted(seen[:6]) == sorted(seen[6:]) == list(range(6))
    assert seen[:6] != seen[6:]


@pytest.mark.parametrize("parts", [["vision"], ["projector"], ["language"], None])
def test_full_fine_tuning_changes_the_parts_it_is_told_to_and_no_others(tuning: Data, tmp_path, parts) -> None:
    folder, lines = lines_of(tuning.config(tmp_path, max_steps=1, parts=parts))
    changed = changed_parts(weights_of(tuning.base), weights_of(folder))
    assert changed == set(parts or ["vision", "projector", "language"])
    groups = [line for line in lines if "learning rate" in line and "weights in" in line]
    assert {line.split()[0] for line in groups} == changed


@pytest.mark.parametrize("parts", [None, ["language", "projector", "vision"]])
def test_an_adapter_and_its_merged_twin_score_the_same(tuning: Data, tmp_path: Path, parts) -> None:
    options = {"method": "lora", "parts": parts, "max_steps": 3, "learning_rate": 1e-2}
    adapter, _ = lines_of(tuning.config(tmp_path / "a", **options))
    merged, _ = lines_of(tuning.config(tmp_path / "m", **options, result="merged"))
    assert (adapter.name, merged.name) == ("adapter", "model")
    with_adapter = in_order(tuning.base, tuning, adapter=adapter)
    assert with_adapter == pytest.approx(in_order(merged, tuning), abs=1e-5)
    assert with_adapter != pytest.approx(in_order(tuning.base, tuning), abs=1e-3)
    assert changed_parts(weights_of(tuning.base), weights_of(merged)) == set(parts or ["language"])
    names = set(weights_of(adapter))
    assert any("vision_tower" in name for name in names) == (parts is not None)
    settings = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    assert settings["base_model_name_or_path"] == str(tuning.base)


def test_an_adapter_brings_its_own_profile(tuning: Data, tmp_path: Path) -> None:
    config = tuning.config(tmp_path, method="lora", max_steps=1, scope="human ratings")
    adapter, _ = lines_of(config)
    assert qsit_plugin.load(tuning.base, device="cpu").scope == "synthetic distortions"
    tuned = qsit_plugin.load(tuning.base, device="cpu", adapter=adapter)
    assert (tuned.scope, tuned.profile.scope_kind) == ("human ratings", "ratings")
    assert tuned.fingerprint not in (qsit_plugin.load(tuning.base, device="cpu").fingerprint, "unsaved")


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({}, "distortions"),
        ({"scope": "human ratings"}, "ratings"),
        ({"scope": "my raters"}, "other"),
        ({"scope": "my raters", "scope_kind": "ratings"}, "ratings"),
        ({"scope_kind": "mixed"}, "mixed"),
    ],
)
def test_the_profile_of_the_result_has_a_kind_of_scope(tuning: Data, tmp_path: Path, changes, kind: str) -> None:
    config = tuning.config(tmp_path, **changes)
    assert result_profile(tuning.profile, config.scope, config.scope_kind).scope_kind == kind


def test_the_same_seed_gives_the_same_weights_and_another_one_others(tuning: Data, tmp_path: Path) -> None:
    def weights(seed: int, name: str) -> dict[str, torch.Tensor]:
        config = tuning.config(tmp_path / name, method="lora", max_steps=2, seed=seed, lora_dropout=0.2)
        return weights_of(lines_of(config)[0])

    first, again, other = weights(1, "a"), weights(1, "b"), weights(2, "c")
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_gradient_checkpointing_and_the_memory_probe_change_nothing(tuning: Data, tmp_path: Path) -> None:
    plain, _ = lines_of(tuning.config(tmp_path / "a", max_steps=2))
    saving, lines = lines_of(tuning.config(tmp_path / "b", max_steps=2, gradient_checkpointing=True, memory_probe=True))
    assert any(line.startswith("memory probe: 3 rows of up to 2") for line in lines)
    expected, found = weights_of(plain), weights_of(saving)
    assert all(torch.allclose(expected[name], found[name], atol=1e-6) for name in expected)


def test_accumulated_batches_give_the_step_of_one_large_batch(tuning: Data, tmp_path: Path) -> None:
    large = steps_of(tuning.config(tmp_path / "a", max_steps=3, batch_size=6))
    small = steps_of(tuning.config(tmp_path / "b", max_steps=3, batch_size=1, gradient_accumulation=6))
    for expected, found in zip(large, small, strict=True):
        assert found == pytest.approx(expected, rel=1e-4)


def test_bf16_keeps_what_is_trained_in_float32(tuning: Data, tmp_path: Path) -> None:
    config = tuning.config(tmp_path, method="lora", parts=["language", "projector"], precision="bf16", max_steps=1)
    prepared = finetune.prepare(config, say=print)
    kinds = {(weight.requires_grad, weight.dtype) for weight in prepared.model.parameters()}
    assert kinds == {(True, torch.float32), (False, torch.bfloat16)}
    finetune.train(prepared)
    folder = finetune.finish(prepared)
    assert all(weight.isfinite().all() for weight in weights_of(folder).values())


def test_memory_that_will_not_do_stops_the_run_before_the_first_step(tuning: Data, tmp_path: Path) -> None:
    prepared = finetune.prepare(tuning.config(tmp_path, memory_probe=True), say=print)

    def exhausted(*arguments, **options):
        raise torch.OutOfMemoryError("CUDA out of memory")

    prepared.loop.loss = exhausted
    with pytest.raises(
        ConfigError, match=r"the longest batch \(3 rows, up to 2\d\d tokens\) does not fit .* batch_size"
    ):
        finetune.train(prepared)
    assert prepared.loop.done == 0


def test_tensorboard_gets_the_losses(tuning: Data, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is optional")
    lines_of(tuning.config(tmp_path, max_steps=1, tensorboard=True))
    assert list((tmp_path / "tensorboard").rglob("events.out.tfevents.*"))


def test_every_trainable_weight_is_in_exactly_one_group(tuning: Data) -> None:
    model = open_checkpoint(tuning.base, device=torch.device("cpu"), dtype=torch.float32).model
    model.requires_grad_(True)
    rates = {"language": 3.0, "projector": 2.0, "vision": 1.0}
    groups = parameter_groups(model, rates, weight_decay=0.1)
    assert {(g["name"], g["lr"], g["weight_decay"]) for g in groups} == {
        *(("language", 3.0, 0.0), ("projector", 2.0, 0.0), ("vision", 1.0, 0.0)),
        *(("language, decaying", 3.0, 0.1), ("projector, decaying", 2.0, 0.1), ("vision, decaying", 1.0, 0.1)),
    }
    lost = groups[0]["params"].pop()
    with pytest.raises(ValueError, match="must be in one learning-rate group: 0 are in several"):
        check_groups(model, groups)
    groups[1]["params"] += [lost, lost]
    with pytest.raises(ValueError, match="1 are in several"):
        check_groups(model, groups)


def test_a_weight_of_no_known_part_is_an_error() -> None:
    with pytest.raises(ValueError, match="weight 'model.extra.weight' belongs to no part"):
        part_of("model.extra.weight")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": "absent.jsonl"}, "data: no file absent.jsonl; qsit train convert writes one"),
        ({"images": "absent"}, "images: no folder absent; give the one that the rows' image paths are relative to"),
        ({"shares": {"other": 1.0}}, "shares: there must be shares for rows"),
        ({"max_tokens": 10**6}, "max_tokens is 1000000, but the model has positions for 32768 only"),
        ({"method": "lora", "parts": ["projector"]}, "method lora needs language or vision in parts"),
        ({"profile": "training"}, None),
    ],
)
def test_a_run_that_cannot_work_stops_before_the_first_step(tuning: Data, tmp_path, changes, message) -> None:
    from qsit_plugin.protocol import ProfileError

    kind = ConfigError if message else ProfileError
    with pytest.raises(kind, match=message or "level word ' excellent' is token"):
        finetune.run(tuning.config(tmp_path / "out", **changes), say=print)
    assert not (tmp_path / "out").exists()
