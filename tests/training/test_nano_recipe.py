"""The recipe behind qsit-nano: distortions, questions, masks, and a few steps of each stage."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from qsit_plugin.conversation import Conversation
from qsit_plugin.network import Network
from qsit_plugin.portable import CHAT_TEMPLATE
from qsit_plugin.tiles import Tiling
from qsit_plugin.training.nano import architecture, distortions, photos, text, tokenizer
from qsit_plugin.training.nano.evaluate import rank_correlation

data = pytest.importorskip("skimage.data", reason="test photos come from scikit-image")


@pytest.fixture(scope="module")
def photo():
    return Image.fromarray(data.astronaut()).crop((100, 0, 356, 256))


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.mark.parametrize("name", distortions.NAMES)
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


@pytest.mark.parametrize("name", distortions.NAMES)
def test_the_severity_score_falls_as_the_strength_rises(name):
    scores = [distortions.severity_score(name, s) for s in (0.0, 0.2, 0.6, 1.0)]
    assert scores == sorted(scores, reverse=True)
    assert 1.0 <= scores[-1] < scores[0] <= 5.0


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
        turn = text.naming_turn("noise", rng(seed))
        letter, _, option = turn.answer.partition(". ")
        assert f"\n{letter}. {option}" in turn.question
        assert option.lower() in {o.lower() for o in ("noise", *text.SYNONYMS["noise"])}


def test_a_clean_view_is_never_given_a_distortion():
    for seed in range(50):
        for turn in text.turns_for(None, 0.0, 4.9, rng(seed)):
            assert not turn.answer.startswith("Yes")
        assert text.naming_turn(None, rng(seed)).answer.partition(". ")[2].lower() in text.NONE


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
    from qsit_plugin.training.nano.choice import NO_OPTION
    from qsit_plugin.training.nano.joint import tokens_of

    conversation = Conversation(words, CHAT_TEMPLATE, words.convert_tokens_to_ids("<image>"))
    turn = text.lettered("Which?", ["motion blur", "noise", "banding"], 1)
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

    torch.manual_seed(0)
    model = LlavaOnevisionForConditionalGeneration(architecture.model_config(words.get_vocab())).eval()
    tiling = Tiling.from_configs(model.config, architecture.PREPROCESSOR)
    network = Network(model, tiling)
    conversation = Conversation(words, CHAT_TEMPLATE, words.convert_tokens_to_ids("<image>"))
    batches = joint.Batches([photo], conversation, tiling, seed=0, early_minutes=1.0)
    batch = batches.batch(rng(1), (0.0, 1.0, 0.0, 0.0))
    before = conversation.prompt("").before
    with torch.no_grad():
        together = joint.forward(network, before, batch, freeze_tower=True)[0][0]
        image = network.image_tokens([batch.tiles[0]], [batch.size])[0]
        for number in range(int(batch.turn[0].max()) + 1):
            own = batch.turn[0] == number
            sequence = torch.cat([network.embed(before), image, network.embed(batch.ids[0][own].tolist())])
            alone = network.logits(network.last_states([sequence]))[0]
            assert torch.allclose(together[own][-1], alone, atol=1e-4), number


def test_all_stages_run_and_leave_a_checkpoint_that_loads(tmp_path, photo):
    pytest.importorskip("scipy", reason="training needs scipy")
    from argparse import Namespace

    import qsit_plugin
    from qsit_plugin.training.nano import joint, language, tower

    (tmp_path / "photos").mkdir()
    for i in range(12):
        photo.rotate(30 * i).save(tmp_path / "photos" / f"{i}.png")
    state = tmp_path / "tower.safetensors"
    tower.train(str(tmp_path / "photos"), str(state), 0.02, batch=8, learning_rate=1e-3, seed=0, threads=1)
    common = {"photos": str(tmp_path / "photos"), "minutes": 0.02, "learning_rate": 1e-3, "seed": 0, "threads": 1}
    start = str(tmp_path / "start.safetensors")
    few = {"resume": None, "evidence_minutes": 0.02, "projector_minutes": 0.01, "views": 128}
    language.train(Namespace(**common, **few, tower=str(state), out=start))
    options = {"start": start, "resume": None, "tower": None, "frozen": 0.5, "early": 0.5, "bfloat16": True}
    joint.train(Namespace(**common, **options, out=str(tmp_path / "nano")))
    assert 0.0 <= qsit_plugin.load(tmp_path / "nano").score(photo).value <= 1.0


def test_rank_correlation_knows_ties_and_constants():
    assert rank_correlation([3, 2, 1], [0, 1, 2]) == pytest.approx(-1.0)
    assert rank_correlation([1, 1, 1], [0, 1, 2]) == 0.0
    assert rank_correlation([1, 1, 2, 3], [0, 1, 2, 3]) == pytest.approx(0.9486833)
