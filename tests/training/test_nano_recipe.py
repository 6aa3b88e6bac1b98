"""The recipe behind qsit-nano: distortions, questions, masks, and a few steps of each stage."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from qsit_plugin.chat import Conversation
from qsit_plugin.checkpoint.saving import CHAT_TEMPLATE
from qsit_plugin.engines.base import Prompt
from qsit_plugin.engines.torch_engine import TorchEngine
from qsit_plugin.tiling import Tiling
from qsit_plugin.training.nano import architecture, tokenizer
from qsit_plugin.training.nano.evaluate import rank_correlation
from qsit_plugin.training.nano.joint import JointStage
from qsit_plugin.training.synthetic import distortions, photos, text, vocabulary
from qsit_plugin.training.synthetic.distortions import Defect

data = pytest.importorskip("skimage.data", reason="test photos come from scikit-image")


@pytest.fixture(scope="module")
def photo():
    return Image.fromarray(data.astronaut()).crop((100, 0, 356, 256))


def rng(seed=0):
    return np.random.default_rng(seed)


def test_the_ten_names_are_as_designed_and_twenty_kinds_are_known():
    assert distortions.NAMES == (
        "blur",
        "motion blur",
        "noise",
        "compression artifacts",
        "underexposure",
        "overexposure",
        "low contrast",
        "faded color",
        "banding",
        "pixelation",
    )
    assert len(set(distortions.KINDS)) == 20
    for table in (vocabulary.SYNONYMS, vocabulary.ADJECTIVES, vocabulary.EVIDENCE, distortions.HARM):
        assert set(table) == set(distortions.KINDS)


@pytest.mark.parametrize("name", distortions.KINDS)
def test_a_distortion_grows_with_its_strength_and_repeats_with_its_seed(photo, name):
    clean = np.asarray(photo, float)
    changed = [np.asarray(distortions.distort(photo, name, s, rng(3)), float) for s in (0.1, 0.5, 1.0)]
    errors = [np.abs(image - clean).mean() for image in changed]
    assert 0 < errors[0] < errors[1] < errors[2]
    assert np.array_equal(changed[1], np.asarray(distortions.distort(photo, name, 0.5, rng(3)), float))


def test_an_unknown_distortion_is_refused_with_the_known_names(photo):
    with pytest.raises(ValueError, match="'blurr'.*motion blur"):
        distortions.distort(photo, "blurr", 0.5, rng())


def test_a_strength_outside_its_range_is_refused(photo):
    with pytest.raises(ValueError, match="in \\[0, 1\\], got 1.5"):
        distortions.distort(photo, "blur", 1.5, rng())


@pytest.mark.parametrize("name", distortions.KINDS)
def test_the_severity_score_falls_as_the_strength_rises(name):
    scores = [distortions.severity_score([Defect(name, s)]) for s in (0.0, 0.2, 0.6, 1.0)]
    assert scores == sorted(scores, reverse=True)
    assert 1.0 <= scores[-1] < scores[0] <= 5.0


def test_two_defects_cost_more_than_either_and_less_than_the_scale():
    first, second = Defect("noise", 0.8), Defect("banding", 0.6)
    both = distortions.severity_score([first, second])
    assert 1.0 < both < min(distortions.severity_score([first]), distortions.severity_score([second]))


@pytest.mark.parametrize("name", ("underexposure", "overexposure"))
def test_every_rendering_of_an_exposure_gives_the_same_brightness(photo, name):
    means = [np.asarray(distortions.distort(photo, name, 0.5, rng(seed)), float).mean() for seed in range(12)]
    assert max(means) - min(means) < 8


def test_a_pair_differs_in_strength_only_and_the_milder_view_comes_first(photo):
    for seed in range(60):
        mild, strong = next(photos.sample_pairs([photo], rng(seed)))
        assert mild.score >= strong.score
        names = [defect.name for defect in strong.defects]
        assert {defect.name for defect in mild.defects} <= set(names) or not names


def test_an_image_under_the_same_plan_and_seed_is_the_same(photo):
    plan = (("noise", 0.4), ("blur", 0.2))
    first, second = (np.asarray(photos.apply(photo, plan, 5)) for _ in range(2))
    assert np.array_equal(first, second)


def test_a_smaller_view_hides_blur_but_not_darkness():
    assert distortions.visible_strength("blur", 0.2, 0.3) == 0.0
    assert distortions.visible_strength("underexposure", 0.2, 0.3) == 0.2


def test_the_split_is_by_photo_and_does_not_depend_on_the_folder(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        for i in range(64):
            Image.new("RGB", (8, 8)).save(tmp_path / folder / f"photo{i}.png")
    (train, held), (_, other) = (photos.split(photos.find(tmp_path / folder)) for folder in ("a", "b"))
    assert {p.name for p in held} == {p.name for p in other}
    assert not set(train) & set(held)
    assert 2 <= len(held) <= 20


def test_a_folder_without_photos_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="give a folder of clean photos"):
        photos.find(tmp_path)


def test_the_right_letter_stands_before_the_right_option():
    for seed in range(200):
        turn = text.naming_turn([Defect("noise", 0.5)], rng(seed))
        letter, _, option = turn.answer.partition(". ")
        assert f"\n{letter}. {option}" in turn.question
        assert option.lower() in {o.lower() for o in ("noise", *vocabulary.SYNONYMS["noise"])}


def test_a_clean_view_is_never_given_a_distortion():
    for seed in range(50):
        for turn in text.turns_for([], 4.9, rng(seed)):
            assert not turn.answer.startswith("Yes")
        assert text.naming_turn([], rng(seed)).answer.partition(". ")[2].lower() in vocabulary.NONE


def test_the_second_of_two_defects_is_never_a_wrong_option():
    for seed in range(100):
        turn = text.naming_turn([Defect("noise", 0.9), Defect("banding", 0.4)], rng(seed))
        assert "banding" not in turn.question.lower()


def test_nothing_like_a_defect_is_asked_for_as_if_it_were_absent():
    absent = text.askable([Defect("motion blur", 0.5)])
    assert not {"motion blur", "blur", "ghosting"} & set(absent)
    assert "noise" in absent
    assert "impulse noise" not in text.askable([Defect("noise", 0.5)])


@pytest.mark.parametrize(
    ("noun", "verb"), [("stripes", "are"), ("compression artifacts", "are"), ("defocus", "is"), ("darkness", "is")]
)
def test_sentences_agree_with_their_nouns(noun, verb):
    assert text.be(noun) == verb


@pytest.fixture(scope="module")
def words():
    return tokenizer.build()


def test_the_five_levels_are_single_tokens_of_the_tokenizer(words):
    profile = tokenizer.profile(words)
    assert len(set(profile.level_token_ids)) == 5
    assert profile.scope == "synthetic distortions"


def test_any_text_survives_the_tokenizer(words):
    line = "Größe 12,5 € — 質量?\n\ttabs"
    assert words.decode(words.encode(line), clean_up_tokenization_spaces=False) == line


def test_an_options_line_is_marked_at_its_end_with_its_letter_and_whether_it_fits(words):
    from qsit_plugin.training.nano.turns import NO_OPTION, tokens_of

    conversation = Conversation(words, CHAT_TEMPLATE, words.convert_tokens_to_ids("<image>"))
    turn = text.multiple_choice_turn("Which?", ["motion blur", "noise", "banding"], 1)
    ids, labels, _, marks = tokens_of(turn, conversation)
    ends = [i for i, mark in enumerate(marks) if mark != NO_OPTION]
    assert [marks[i] for i in ends] == [0, 2 + 1, 4]
    assert [words.decode(ids[i - 1 : i]).strip() for i in ends] == ["blur", "noise", "banding"]
    assert words.decode([label for label in labels if label >= 0]) == "B. noise<|im_end|>"


def test_dct_filters_are_distinct_and_span_high_frequencies():
    filters = architecture.dct_filters().flatten(1)
    normal = torch.nn.functional.normalize(filters, dim=1)
    overlap = (normal @ normal.T - torch.eye(len(filters))).abs().max()
    assert overlap < 0.95, "two filters are nearly the same"
    luma = architecture.dct_filters()[:150].sum(1)
    assert (luma.diff(dim=-1).abs().mean((1, 2)) > luma.abs().mean((1, 2))).any(), "no filter changes at every pixel"


def test_questions_behind_one_image_are_answered_as_if_asked_alone(words, photo):
    """The block mask of the joint stage against the plain path of the core, on random weights."""
    joint = pytest.importorskip("qsit_plugin.training.nano.joint")
    from transformers import LlavaOnevisionForConditionalGeneration

    from qsit_plugin.training.nano.batches import Batches

    torch.manual_seed(0)
    model = LlavaOnevisionForConditionalGeneration(architecture.model_config(words.get_vocab())).eval()
    tiling = Tiling.from_configs(model.config, architecture.PREPROCESSOR)
    engine = TorchEngine(model, tiling)
    conversation = Conversation(words, CHAT_TEMPLATE, words.convert_tokens_to_ids("<image>"))
    batches = Batches([photo], conversation, tiling, seed=0, early=1)
    batch = batches.batch(rng(1), (0.0, 1.0, 0.0, 0.0))
    before = conversation.prompt("").before
    with torch.no_grad():
        together = joint.forward(engine, before, batch, freeze_tower=True)[0][0]
        image = engine.encode([batch.tiles[0].numpy()], [batch.size])[0]
        for number in range(int(batch.turn[0].max()) + 1):
            own = batch.turn[0] == number
            prompt = Prompt(before, tuple(batch.ids[0][own].tolist()))
            alone = engine.logits(engine.last_states(prompt, [image]))[0]
            assert torch.allclose(together[own][-1], alone, atol=1e-4), number


SMALL = """
tower: {steps: 4, batch: 8, save_every: 2, augmentation: 0.5, kept: 0.5}
language: {steps: 4, batch: 8, save_every: 2, checkpoint: qsit-nano}
evidence: {views: 64, steps: 2, batch: 8, projector_steps: 2}
joint: {steps: 4, frozen: 0.5, early: 1.0, save_every: 2, augmentation: 0.5, scoring: 0.5}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory, photo):
    """Twelve photos and a recipe of a few steps."""
    place = tmp_path_factory.mktemp("recipe")
    (place / "photos").mkdir()
    for i in range(12):
        photo.rotate(30 * i).save(place / "photos" / f"{i}.png")
    (place / "small.yaml").write_text(SMALL, encoding="utf-8")
    return place


@pytest.fixture(scope="module")
def made(folder):
    pytest.importorskip("scipy", reason="training needs scipy")
    pytest.importorskip("yaml", reason="a recipe needs pyyaml")
    from qsit_plugin.training.nano import make

    threads = torch.get_num_threads()
    nano = make.make(folder / "photos", folder / "out", folder / "small.yaml")
    yield nano
    torch.set_num_threads(threads)


def test_a_recipe_leads_from_photos_to_a_checkpoint_that_loads(made, photo):
    import qsit_plugin

    assert 0.0 <= qsit_plugin.load(made).score(photo).value <= 1.0


def test_a_stopped_stage_goes_on_to_the_same_weights(made, folder, monkeypatch):
    from safetensors.torch import load_file

    from qsit_plugin.training.nano import loop, make, tower

    again = folder / "again.safetensors"
    stage = make.read_recipe(folder / "small.yaml").tower
    save = loop.Loop.save

    def stop_after_saving(running, path):
        save(running, path)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(loop.Loop, "save", stop_after_saving)
        with pytest.raises(KeyboardInterrupt):
            tower.train(folder / "photos", again, stage)
    assert not again.exists()
    tower.train(folder / "photos", again, stage)
    whole, resumed = load_file(folder / "out" / "tower.safetensors"), load_file(again)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_finished_stages_are_not_done_again_and_another_recipe_needs_another_folder(made, folder, capsys):
    from qsit_plugin.training.nano import make

    make.make(folder / "photos", folder / "out", folder / "small.yaml")
    assert capsys.readouterr().out.count("done before") == 4
    (folder / "other.yaml").write_text(SMALL.replace("joint: {steps: 4", "joint: {steps: 5"), encoding="utf-8")
    with pytest.raises(make.RecipeError, match="another recipe or other photos: give another --out"):
        make.make(folder / "photos", folder / "out", folder / "other.yaml")


def test_a_round_that_goes_on_from_a_checkpoint_needs_neither_codes_nor_evidence(made, folder, capsys):
    from qsit_plugin.training.nano import make

    onward = SMALL.replace("tower: {", "tower: {checkpoint: qsit-nano, ")
    onward = onward.replace("joint: {", "joint: {checkpoint: qsit-nano, ")
    (folder / "onward.yaml").write_text(onward, encoding="utf-8")
    make.make(folder / "photos", folder / "onward", folder / "onward.yaml")
    stages = [line for line in capsys.readouterr().out.splitlines() if line in ("tower:", "language:", "evidence:")]
    assert stages == ["tower:"]


def test_the_joint_stage_that_goes_on_has_the_new_tower_and_the_old_language_model(made, folder):
    from qsit_plugin.training.nano import joint, language, tower

    towered = folder / "out" / "tower.safetensors"
    found = joint.begin(towered, joint.JointStage(checkpoint="qsit-nano")).model.state_dict()
    old = language.learner()
    language.take_weights(old, "qsit-nano")
    new_tower = tower.inner_tower(tower.load_result(towered).tower).state_dict()
    shared = {name: weight for name, weight in old.model.state_dict().items() if "vision_tower" not in name}
    assert all(torch.equal(found[name], weight) for name, weight in shared.items())
    towers = [weight for name, weight in found.items() if "vision_tower" in name]
    assert all(torch.equal(a, b) for a, b in zip(towers, new_tower.values(), strict=True))


def test_a_joint_stage_of_another_checkpoint_than_its_tower_is_refused(tmp_path):
    pytest.importorskip("yaml", reason="a recipe needs pyyaml")
    from qsit_plugin.training.nano import make

    (tmp_path / "mixed.yaml").write_text("joint: {checkpoint: qsit-nano}", encoding="utf-8")
    with pytest.raises(make.RecipeError, match="the tower from None; .* give both the same checkpoint"):
        make.read_recipe(tmp_path / "mixed.yaml")


def test_the_published_recipe_is_read_and_a_wrong_setting_is_named(tmp_path):
    pytest.importorskip("yaml", reason="a recipe needs pyyaml")
    from qsit_plugin.training.nano import make

    assert make.read_recipe(make.RECIPE).tower.learning_rate > 0
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("tower: {step: 4}", encoding="utf-8")
    with pytest.raises(make.RecipeError, match="wrong.yaml, tower: unknown setting step; there are steps, .*batch"):
        make.read_recipe(wrong)
    wrong.write_text("towers: {steps: 4}", encoding="utf-8")
    with pytest.raises(make.RecipeError, match="unknown setting towers; there are tower, language, evidence, joint"):
        make.read_recipe(wrong)
    wrong.write_text("tower: [4]", encoding="utf-8")
    with pytest.raises(make.RecipeError, match="\\[4\\] is no list of settings"):
        make.read_recipe(wrong)


def test_the_older_name_of_augmentation_is_read(tmp_path):
    pytest.importorskip("yaml", reason="a recipe needs pyyaml")
    from qsit_plugin.training.nano import make

    (tmp_path / "older.yaml").write_text("tower: {variety: 0.25}\njoint: {variety: 5e-1}", encoding="utf-8")
    recipe = make.read_recipe(tmp_path / "older.yaml")
    assert (recipe.tower.augmentation, recipe.joint.augmentation) == (0.25, 0.5)


def test_every_setting_of_a_stage_is_an_option_of_its_command(monkeypatch):
    from qsit_plugin.training.nano import __main__ as command_line

    called = []

    def stage_of_a_test(photos: Path, out: Path, stage: JointStage) -> None:
        called.append((photos, out, stage))

    monkeypatch.setitem(command_line.COMMANDS, "joint", stage_of_a_test)
    words = "nano joint --photos a --out b --steps 7 --new-tower 0.5 --bfloat16 --checkpoint qsit-nano"
    monkeypatch.setattr("sys.argv", words.split())
    command_line.main()
    expected = JointStage(steps=7, new_tower=0.5, bfloat16=True, checkpoint="qsit-nano")
    assert called == [(Path("a"), Path("b"), expected)]


def test_a_command_says_what_is_wrong_in_one_sentence(tmp_path, monkeypatch):
    pytest.importorskip("yaml", reason="a recipe needs pyyaml")
    from qsit_plugin.training.nano import __main__ as command_line

    monkeypatch.setattr("sys.argv", ["nano", "make", "--photos", str(tmp_path), "--out", str(tmp_path / "out")])
    with pytest.raises(SystemExit, match="no photo below .*; give a folder of clean photos"):
        command_line.main()


def test_rank_correlation_knows_ties_and_constants():
    assert rank_correlation([3, 2, 1], [0, 1, 2]) == pytest.approx(-1.0)
    assert rank_correlation([1, 1, 1], [0, 1, 2]) == 0.0
    assert rank_correlation([1, 1, 2, 3], [0, 1, 2, 3]) == pytest.approx(0.9486833)
