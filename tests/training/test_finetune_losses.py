"""The losses, against the same written out by hand, and what each normalisation makes equal."""

import math

import pytest
import torch

from tests.training.runs import Data, rating, require_training

require_training()

import qsit_plugin  # noqa: E402
from qsit_plugin.training.data.collator import Collator  # noqa: E402
from qsit_plugin.training.data.dataset import QualityDataset  # noqa: E402
from qsit_plugin.training.losses import rank_losses, token_losses, total_loss  # noqa: E402

IDS = (5, 3, 1, 0, 7)


def ratings_batch(probs: list[list[float]], places: int = 3) -> dict[str, torch.Tensor]:
    """Ratings of three tokens each, the level word at the second."""
    count = len(probs)
    targets = torch.arange(count * places).reshape(count, places) % 9
    targets[:, 1] = IDS[2]
    return {
        "targets": targets,
        "level_row": torch.arange(count),
        "level_place": torch.ones(count, dtype=torch.long),
        "level_probs": torch.tensor(probs),
        "pairs": torch.combinations(torch.arange(count)),
    }


def random_logits(batch: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.randn(*batch["targets"].shape, 9, generator=torch.Generator().manual_seed(0))


def test_hard_levels_are_the_plain_cross_entropy_of_the_text() -> None:
    batch = ratings_batch([[0.0, 0.4, 0.6, 0.0, 0.0]])
    logits = random_logits(batch)
    found = token_losses(logits, batch, IDS, soft=False)
    expected = -logits.log_softmax(-1)[0, torch.arange(3), batch["targets"][0]]
    torch.testing.assert_close(found[0], expected)


def test_soft_levels_replace_the_level_word_alone_over_the_whole_vocabulary() -> None:
    probs = [0.0, 0.4, 0.6, 0.0, 0.0]
    batch = ratings_batch([probs])
    logits = random_logits(batch)
    soft, hard = (token_losses(logits, batch, IDS, soft=choice)[0] for choice in (True, False))
    expected = -sum(p * float(logits[0, 1].log_softmax(-1)[i]) for p, i in zip(probs, IDS, strict=True))
    assert float(soft[1]) == pytest.approx(expected, rel=1e-5)
    assert soft[0] == hard[0] and soft[2] == hard[2]


def test_a_rating_without_soft_label_keeps_its_word() -> None:
    batch = ratings_batch([[0.0, 0.4, 0.6, 0.0, 0.0], [math.nan] * 5])
    logits = random_logits(batch).requires_grad_()
    soft, hard = (token_losses(logits, batch, IDS, soft=choice) for choice in (True, False))
    assert soft[1].tolist() == hard[1].tolist()
    soft.sum().backward()
    assert logits.grad.isfinite().all()


def level_logits(probs: list[list[float]]) -> torch.Tensor:
    logits = torch.full((len(probs), 3, 9), -9.0)
    logits[:, 1, list(IDS)] = torch.tensor(probs).clamp(min=1e-6).log()
    return logits


GOOD, POOR = [0.2, 0.7, 0.1, 0.0, 0.0], [0.0, 0.0, 0.2, 0.7, 0.1]


def test_rank_is_nothing_for_the_right_order_and_nearly_one_for_the_wrong_one() -> None:
    right = rank_losses(level_logits([GOOD, POOR]), ratings_batch([GOOD, POOR]), IDS)
    wrong = rank_losses(level_logits([POOR, GOOD]), ratings_batch([GOOD, POOR]), IDS)
    assert right.shape == (1,)
    assert float(right) < 0.01
    assert float(wrong) > 0.8


def test_rank_of_equal_images_is_least_where_they_are_predicted_equal() -> None:
    batch = ratings_batch([GOOD, GOOD])
    assert float(rank_losses(level_logits([GOOD, GOOD]), batch, IDS)) < 1e-4
    assert float(rank_losses(level_logits([GOOD, POOR]), batch, IDS)) > 0.1


def test_rank_has_a_gradient_where_a_pair_is_certain_and_wrong() -> None:
    best, worst = [1.0, 0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0, 1.0]
    logits = level_logits([worst, best]).requires_grad_()
    rank_losses(logits, ratings_batch([best, worst]), IDS).sum().backward()
    assert logits.grad.isfinite().all()


def losses_and_batch(normalize: str) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Two ratings of 2 tokens and a conversation of 6, with losses 1, 2 and 4 a token."""
    weights = torch.tensor([[1.0] * 2 + [0.0] * 4, [1.0] * 2 + [0.0] * 4, [1.0] * 6])
    losses = torch.tensor([[1.0], [2.0], [4.0]]) * (weights > 0)
    if normalize != "token":
        weights = weights / weights.sum(-1, keepdim=True)
    task = torch.tensor([0, 0, 1])
    amounts = torch.stack([weights[task == 0].sum(), weights[task == 1].sum(), torch.tensor(0.0)])
    return losses, {"weights": weights, "task": task, "amounts": amounts}


@pytest.mark.parametrize(
    ("normalize", "expected"),
    [("token", (2 * 1 + 2 * 2 + 6 * 4) / 10), ("sample", (1 + 2 + 4) / 3), ("task", (1.5 + 4) / 2)],
)
def test_each_normalisation_counts_what_it_says_the_same(normalize: str, expected: float) -> None:
    losses, batch = losses_and_batch(normalize)
    assert float(total_loss(losses, batch, batch["amounts"], normalize)) == pytest.approx(expected)


@pytest.mark.parametrize("normalize", ["token", "sample", "task"])
def test_the_parts_of_a_step_add_up_to_the_loss_of_all_its_rows(tuning: Data, normalize: str) -> None:
    """Rows of both tasks, cut into batches of other sizes, each divided by the amounts of all."""
    config = tuning.config(tuning.folder, normalize=normalize, level_weight=3.0, level_loss="soft+rank")
    model = qsit_plugin.load(tuning.base, device="cpu")
    collator = Collator(model.conversation.image_token_id, 0, config)
    dataset = QualityDataset(
        tuning.rows,
        tuning.folder,
        conversation=model.conversation,
        profile=model.profile,
        tiling=model.checkpoint.tiling,
        stop_ids=model.stop_ids,
        max_tokens=9999,
    )

    def loss_of(batches):
        amounts = sum(batch["amounts"] for batch in batches)
        parts = [total_loss((b["weights"] > 0) * b["targets"].float(), b, amounts, normalize) for b in batches]
        return float(sum(parts))

    whole = [collator([dataset[n] for n in range(6)])]
    parts = [collator([dataset[n] for n in group]) for group in ([0], [1, 2, 5], [3, 4])]
    assert loss_of(parts) == pytest.approx(loss_of(whole), rel=1e-5)


def test_level_weight_counts_against_every_other_token_of_its_answer(tuning: Data) -> None:
    model = qsit_plugin.load(tuning.base, device="cpu")
    rows = [*tuning.rows[:2], rating("2.png", 50.0, tuning.profile, source="elsewhere")]
    dataset = QualityDataset(
        rows,
        tuning.folder,
        conversation=model.conversation,
        profile=model.profile,
        tiling=model.checkpoint.tiling,
        stop_ids=model.stop_ids,
        max_tokens=9999,
    )
    config = tuning.config(tuning.folder, level_weight=4.0, normalize="token", level_loss="soft+rank")
    batch = Collator(model.conversation.image_token_id, 0, config)([dataset[n] for n in range(3)])
    levels = batch["weights"][batch["level_row"], batch["level_place"]]
    assert levels.tolist() == [4.0, 4.0, 4.0]
    assert (batch["weights"] == 1.0).sum().item() == 3 * 8
    assert batch["pairs"].tolist() == [[0, 1]]  # ratings of two sources are on two scales
