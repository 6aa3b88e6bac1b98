"""What nano's tower and joint stage learn from: levels and order alone, or words and letters too."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from PIL import Image

from qsit_plugin.training.nano import joint
from qsit_plugin.training.nano.batches import Batches
from qsit_plugin.training.nano.language import Learner, learner
from qsit_plugin.training.nano.tower import rank_losses

data = pytest.importorskip("skimage.data", reason="test photos come from scikit-image")


@pytest.fixture(scope="module")
def made() -> Learner:
    return learner(width=96)


def batches(made: Learner, scoring: float) -> Batches:
    photo = Image.fromarray(data.astronaut()).crop((100, 0, 356, 256))
    return Batches([photo], made.conversation, made.engine.tiling, seed=0, early=1, scoring=scoring)


def test_a_batch_of_scores_alone_is_learned_from_by_level_and_order(made: Learner) -> None:
    batch = batches(made, scoring=1.0)[0]
    assert int(batch.turn.max()) == 0
    before = made.conversation.prompt("").before
    logits, states = joint.forward(made.engine, before, batch, freeze_tower=False)
    parts = joint.losses_of(logits, states, batch, made.level_ids, made.heads)
    assert set(parts) - {"file"} == {"level", "rank", "ranks"}


def test_a_score_alone_needs_no_mask(made: Learner) -> None:
    batch = batches(made, scoring=1.0)[0]
    masked = replace(batch, turn=torch.where(batch.turn < 0, batch.turn, 1))  # as if another turn were before it
    before = made.conversation.prompt("").before
    with torch.no_grad():
        found, expected = (joint.forward(made.engine, before, some, freeze_tower=True)[0] for some in (batch, masked))
    known = batch.labels >= 0
    assert torch.allclose(found[known], expected[known], atol=1e-4)


def test_some_pairs_are_one_view_lossless_and_as_a_file_with_one_score(made: Learner) -> None:
    batch = next(batch for number in range(20) if (batch := batches(made, scoring=1.0)[number]).filed.any())
    lossless, as_file = batch.tiles.unflatten(0, (-1, 2))[batch.filed].int().unbind(1)
    assert 0 < (lossless - as_file).abs().float().mean() < 8
    mild, strong = batch.scores.unflatten(0, (-1, 2))[batch.filed].unbind(1)
    assert torch.equal(mild, strong)


def test_a_file_costs_what_its_score_is_above_a_little_less_than_the_lossless_one() -> None:
    value = torch.tensor([4.0, 4.0 - joint.FILE_COST, 3.0, 3.5, 2.0, 5.0])
    assert joint.file_loss(value, torch.tensor([True, False, False])) == pytest.approx(0.0, abs=1e-6)
    half = joint.FILE_WEIGHT * (0.5 + joint.FILE_COST) / 2
    assert joint.file_loss(value, torch.tensor([True, True, False])) == pytest.approx(half, abs=1e-5)


def test_without_choice_heads_everything_else_is_learned(made: Learner) -> None:
    batch = batches(made, scoring=0.0)[0]
    before = made.conversation.prompt("").before
    with torch.no_grad():
        logits, states = joint.forward(made.engine, before, batch, freeze_tower=True)
        parts = joint.losses_of(logits, states, batch, made.level_ids, None)
    assert set(parts) - {"file"} == {"level", "rank", "ranks", "letter", "first", "rest"}


def test_views_out_of_order_cost_more_than_views_in_order_across_regions_too() -> None:
    scores = torch.tensor([5.0, 4.0, 3.0, 2.0])  # two pairs: (5, 4) and (3, 2)
    pairs_right, all_right = rank_losses(torch.tensor([5.0, 4.0, 3.0, 2.0]), scores)
    pairs_shifted, all_shifted = rank_losses(torch.tensor([3.0, 2.0, 5.0, 4.0]), scores)
    pairs_turned, _ = rank_losses(torch.tensor([4.0, 5.0, 2.0, 3.0]), scores)
    assert pairs_shifted == pairs_right  # the versions of each photo are in order
    assert all_shifted > all_right + 1.0
    assert pairs_turned > pairs_right + 1.0


def test_a_batch_whose_scores_are_all_alike_has_no_order_to_learn() -> None:
    pairs, all_views = rank_losses(torch.tensor([4.0, 1.0]), torch.tensor([4.9, 4.9]))
    assert pairs == all_views == 0.0
