"""Which ratings soft+rank compares: over devices, and whether any meet at all."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.training.runs import Data, require_training

require_training()

from qsit_plugin.training import run as finetune  # noqa: E402
from qsit_plugin.training.config import ConfigError, read_config  # noqa: E402
from qsit_plugin.training.data.collator import NO_SOURCE  # noqa: E402
from qsit_plugin.training.data.mixture import read_data  # noqa: E402
from qsit_plugin.training.data.rows import write_rows  # noqa: E402
from qsit_plugin.training.losses import fidelity_losses  # noqa: E402
from qsit_plugin.training.ranking import check_pairs, padded_sources, pair_count, planned_pairs, rank_part  # noqa: E402

CONFIGS = Path(__file__).resolve().parents[2] / "training" / "configs"


def test_parts_of_three_devices_add_up_to_all_pairs_with_their_whole_gradient() -> None:
    """Two sources, a rating that is not compared, and a device without any; each device knows its own rows alone."""
    generator = torch.Generator().manual_seed(0)
    predicted, labels = (torch.rand(5, 5, generator=generator).softmax(-1) for _ in range(2))
    sources = torch.tensor([7, 9, 7, NO_SOURCE, 7])
    whole = predicted.clone().requires_grad_()
    expected = fidelity_losses(whole, labels, torch.tensor([[0, 2], [0, 4], [2, 4]])).sum()
    expected.backward()
    devices = [[0, 1, 2], [], [3, 4]]
    own = [predicted[rows].clone().requires_grad_() for rows in devices]
    batches = [{"level_probs": labels[rows], "level_source": sources[rows]} for rows in devices]

    def gather_by(values: list[torch.Tensor]):
        """What a device's gather returns; ``values`` of all devices, as each hands them in."""
        return lambda mine: torch.cat(values) if mine.dtype == values[0].dtype else torch.cat(numbers)

    numbers = [padded_sources([batch], 3)[0] for batch in batches]
    handed = []
    for levels, batch in zip(own, batches, strict=True):
        both = torch.zeros(3, 10)
        both[: len(levels)] = torch.cat([levels.detach(), batch["level_probs"]], -1)
        handed.append(both)
    parts = [
        rank_part(levels, batch, rows=3, place=place, gather=gather_by(handed))
        for place, (levels, batch) in enumerate(zip(own, batches, strict=True))
    ]
    assert float(sum(parts).detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    sum(parts).backward()
    torch.testing.assert_close(torch.cat([levels.grad for levels in own if len(levels)]), whole.grad)
    assert int(pair_count(torch.cat(numbers))) == 3


def test_soft_rank_in_batches_of_one_image_is_refused_with_the_cure(tuning: Data, tmp_path: Path) -> None:
    """Also where gradients add up: once it ran as level_loss: soft without a word."""
    options = {"level_loss": "soft+rank", "batch_size": 1, "gradient_accumulation": 6}
    with pytest.raises(
        ConfigError,
        match=r"with batch_size 1 on 1 device none of the 6 batches of an epoch has two .* give batch_size: 2 with "
        "less gradient_accumulation, or level_loss: soft",
    ):
        finetune.prepare(tuning.config(tmp_path / "out", **options))
    assert not (tmp_path / "out").exists()


def test_soft_rank_is_refused_where_ratings_are_too_rare_to_meet(tuning: Data, tmp_path: Path) -> None:
    """A tenth are ratings and the sources are spread evenly, so a batch of four never has two."""
    write_rows(tmp_path / "mos.jsonl", tuning.rows[:5])
    write_rows(tmp_path / "talks.jsonl", [replace(tuning.rows[5], id=f"talk{number}") for number in range(45)])
    data = tmp_path / "data.yaml"
    data.write_text("datasets: [{json_path: mos.jsonl}, {json_path: talks.jsonl}]", encoding="utf-8")
    options = {"data": str(data), "level_loss": "soft+rank"}
    with pytest.raises(ConfigError, match="none of the 13 batches of an epoch has two .* give batch_size: (16|32)"):
        finetune.prepare(tuning.config(tmp_path / "out", **options, batch_size=4))
    # data without ratings are not refused: the ends of a balance search are trained on one task alone
    none = tuning.config(tmp_path / "out", **options, batch_size=4, shares={"mos": 0, "talks": 1})
    assert check_pairs(read_data(str(data)), none, 1).startswith("soft+rank: no two ratings of one source")


def test_planned_pairs_are_those_of_the_batches_that_are_trained_on(tuning: Data, tmp_path: Path) -> None:
    config = tuning.config(tmp_path / "out", level_loss="soft+rank", batch_size=2)
    prepared = finetune.prepare(config)
    found = [int(batch["amounts"][2]) for [batch] in prepared.loop.epoch(0)]
    assert planned_pairs(read_data(config.data), config, devices=1).tolist() == found
    assert sum(found) == 2


@pytest.mark.parametrize(
    ("name", "changes", "compares"), [("lora", [], 1), ("full", [], 0), ("full", ["batch_size=2"], 1)]
)
def test_the_shipped_settings_with_soft_rank_compare_ratings_or_are_refused(
    tuning: Data, name: str, changes: list[str], compares: bool
) -> None:
    """full.yaml has LLaVA-OneVision's batch of one image, in which nothing can be compared on one device."""
    shipped = read_config(CONFIGS / f"{name}.yaml", ["level_loss=soft+rank", *changes])
    mixture = read_data(str(tuning.folder / "rows.jsonl"))
    if compares:
        assert "pairs of ratings in a batch" in check_pairs(mixture, shipped, 1)
    else:
        with pytest.raises(ConfigError, match="give batch_size: 2 with less gradient_accumulation"):
            check_pairs(mixture, shipped, 1)
    assert "pairs of ratings in a batch" in check_pairs(mixture, shipped, 2)
