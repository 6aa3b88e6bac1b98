"""What nano's stages train with: plain attention gives what the fused one does, Muon takes hidden matrices alone."""

import pytest
import torch

from qsit_plugin.training.nano import joint, optimizers
from qsit_plugin.training.nano.architecture import attend, use_plain_attention
from qsit_plugin.training.nano.language import learner
from qsit_plugin.training.nano.tower import TowerWithHeads

torch.manual_seed(0)
muon = pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="torch before 2.9 has no Muon")


def vectors() -> list[torch.Tensor]:
    return [torch.randn(2, 3, 7, 8) for _ in range(3)]


@pytest.mark.parametrize("masked", [False, True])
def test_plain_attention_is_attention(masked: bool) -> None:
    query, key, value = vectors()
    mask = torch.zeros(2, 1, 7, 7).masked_fill(torch.rand(2, 1, 7, 7) < 0.3, -1e9) if masked else None
    expected = torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    found, _ = attend(torch.nn.Identity(), query, key, value, mask, 8**-0.5)
    assert torch.allclose(found.transpose(1, 2), expected, atol=1e-6)


def test_plain_attention_without_a_mask_is_causal_where_its_module_is() -> None:
    module = torch.nn.Identity()
    module.is_causal = True
    query, key, value = vectors()
    expected = torch.nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)
    found, _ = attend(module, query, key, value, None, 8**-0.5)
    assert torch.allclose(found.transpose(1, 2), expected, atol=1e-6)


def test_the_vision_tower_of_the_joint_stage_gives_the_features_that_are_scored() -> None:
    made = learner(width=96)
    pixels = torch.randn(2, 3, 128, 128)
    with torch.no_grad():
        expected = made.engine.features(pixels)
        use_plain_attention(made.model)
        found = joint._features(made.model.model.vision_tower, pixels)
    assert torch.allclose(found, expected, atol=1e-4)


@muon
def test_muon_takes_the_matrices_of_the_layers_and_adamw_all_the_rest() -> None:
    model = TowerWithHeads(0)
    first, second = optimizers.muon_and_adamw(model)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    taken = [{names[id(p)] for group in one.param_groups for p in group["params"]} for one in (first, second)]
    assert taken[0] | taken[1] == set(names.values()) and not taken[0] & taken[1]
    assert all(".layers." in name and name.endswith("weight") for name in taken[0])
    assert len(taken[0]) == 6 * 6  # four matrices of attention and two of the MLP, six layers


@muon
def test_the_joint_stage_trains_every_parameter_once_the_tower_slower() -> None:
    made = learner(width=96)
    found = joint.optimizers_for(made.model, made.heads)
    ids = [id(p) for one in found for group in one.param_groups for p in group["params"]]
    assert sorted(ids) == sorted(id(p) for p in [*made.model.parameters(), *made.heads.parameters()])
    tower = {id(p) for name, p in made.model.named_parameters() if "vision_tower" in name}
    groups = [group for one in found for group in one.param_groups]
    factors = {True: set(), False: set()}
    for group in groups:
        for parameter in group["params"]:
            factors[id(parameter) in tower].add(group["factor"])
    assert factors == {True: {0.3, 0.3 * optimizers.MUON}, False: {1.0, optimizers.MUON}}


def test_torch_without_muon_is_refused_with_the_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.optim, "Muon", raising=False)
    with pytest.raises(RuntimeError, match="needs torch 2.9 or later, this is .*pip install -U torch"):
        optimizers.muon_and_adamw(TowerWithHeads(0))


def test_a_stage_logs_the_means_of_its_losses_and_its_speed(capsys) -> None:
    from qsit_plugin.training.nano.loop import log_means

    moving, recent = log_means(100, 2, "{:.0f} views/s"), log_means(100, 50, "{:.2f} steps/s", keep=None)
    for step in range(1, 51):
        moving(step, {"level": 1.0 + (step == 1), "rest": 0.5}, 90.0)
        recent(step, {"a": float(step), "b": 2.0}, 4.0)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "step 2 of 100 level 1.980 rest 0.500 90 views/s"
    assert lines[-1] == "step 50 of 100 a 25.500 b 2.000 4.00 steps/s"


def test_a_loss_that_comes_later_has_the_mean_of_the_steps_that_have_it(capsys) -> None:
    from qsit_plugin.training.nano.loop import log_means

    log = log_means(4, 4, "", keep=None)
    for step, losses in enumerate(({"a": 1.0}, {"a": 1.0}, {"a": 1.0, "b": 3.0}, {"a": 1.0, "b": 5.0}), 1):
        log(step, losses, 0.0)
    assert capsys.readouterr().out.startswith("step 4 of 4 a 1.000 b 4.000")
