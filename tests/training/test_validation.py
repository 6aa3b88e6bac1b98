"""A model's figures on rows: each against the public interface or numbers worked out by hand."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.training.runs import SCALE, Data, require_training, talk

require_training()

import qsit_plugin  # noqa: E402
from qsit_plugin.evaluation.statistics import correlations  # noqa: E402
from qsit_plugin.images.reading import ImageError  # noqa: E402
from qsit_plugin.model import QSiT  # noqa: E402
from qsit_plugin.protocol import LEVELS  # noqa: E402
from qsit_plugin.training.data.choices import choice_of, kind_of  # noqa: E402
from qsit_plugin.training.data.rows import TrainingRow  # noqa: E402
from qsit_plugin.training.validation import validate  # noqa: E402


@pytest.fixture(scope="module")
def model(tuning: Data) -> QSiT:
    return qsit_plugin.load(tuning.base, device="cpu", dtype="float32")


def question(text: str, answer: str, image: str = "0.png", name: str = "q") -> TrainingRow:
    messages = [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": text}]},
        {"role": "assistant", "content": [{"type": "text", "text": answer}]},
    ]
    return TrainingRow(name, image, "interpret", messages, source="talk")


BLUR = "What is wrong?\nA. blur\nB. noise\nC. nothing"


def test_agreement_is_that_of_the_scores_with_the_ratings(tuning: Data, model: QSiT) -> None:
    figures = validate(model, tuning.rows, tuning.folder)
    scores = [score.value for score in model.score(tuning.pictures)]
    expected = correlations(scores, [row.mos for row in tuning.rows[:5]])
    assert figures.srcc == pytest.approx(expected["srcc"])
    assert figures.plcc == pytest.approx(expected["plcc"], abs=1e-5)
    assert figures.krcc == pytest.approx(expected["krcc"])
    assert figures.plcc_logistic4 == pytest.approx(expected["plcc_logistic4"], abs=1e-3)
    assert figures.counts == {"score": 5, "interpret": 1, "choices": 0, "images": 5}


def test_losses_are_those_of_training(tuning: Data, model: QSiT, tmp_path: Path) -> None:
    """Soft levels at the level word, and the mean over the tokens of all answers of a conversation."""
    from qsit_plugin.training import run as finetune
    from qsit_plugin.training.forward import forward
    from qsit_plugin.training.losses import token_losses

    prepared = finetune.prepare(tuning.config(tmp_path), say=print)
    batch = prepared.loop.collator([prepared.dataset[index] for index in range(6)])
    level_ids = prepared.checkpoint.profile.level_token_ids
    with torch.no_grad():
        losses = token_losses(forward(prepared.model, batch, prepared.dataset.tiling), batch, level_ids, soft=True)
    figures = validate(model, tuning.rows, tuning.folder)
    assert figures.score_loss == pytest.approx(float(losses[batch["level_row"], batch["level_place"]].mean()), rel=1e-4)
    assert figures.interpret_loss == pytest.approx(float((losses * batch["weights"]).sum(-1)[5]), rel=1e-4)


def test_a_rating_without_soft_levels_is_held_against_its_word(tuning: Data, model: QSiT) -> None:
    row = replace(tuning.rows[1], level_probs=None)
    score, mass = model.score(tuning.pictures[1]), model.score(tuning.pictures[1]).level_mass
    assert validate(model, [row], tuning.folder).score_loss == pytest.approx(
        -math.log(score.probabilities["good"] * mass), rel=1e-4
    )


def test_choices_are_answered_as_by_choose_and_sorted_by_their_first_word(tuning: Data, model: QSiT) -> None:
    shares = model.choose(tuning.pictures[0], "What is wrong?", ["blur", "noise", "nothing"])
    likeliest = "ABC"[shares.index(max(shares))]
    wrong = "ABC"[shares.index(min(shares))]
    rows = [question(BLUR, likeliest), question(BLUR, f"{wrong}."), question("Is it sharp?\nA. Yes\nB. No", "A. Yes")]
    figures = validate(model, rows, tuning.folder)
    sharp = model.choose(tuning.pictures[0], "Is it sharp?", ["Yes", "No"])
    assert figures.accuracy_by_kind == {"yes-no": float(sharp[0] > sharp[1]), "what": 0.5}
    assert figures.accuracy == pytest.approx((1 + (sharp[0] > sharp[1])) / 3)
    assert figures.chance == pytest.approx((1 / 3 + 1 / 3 + 1 / 2) / 3)
    assert figures.srcc is None and figures.score_loss is None and figures.confusion is None


def test_written_answers_are_read_by_the_official_rule(tuning: Data, model: QSiT) -> None:
    from qsit_plugin.evaluation.multiple_choice import Question, is_right, prompt

    asked = Question("0.png", "What is wrong?", ("blur", "noise", "nothing"), 0)
    text = model.ask(tuning.pictures[0], prompt(asked)).text
    expected = [float(is_right(text, asked.options, number)) for number in range(3)]
    found = [validate(model, [question(BLUR, letter)], tuning.folder, answers="generate").accuracy for letter in "ABC"]
    assert found == expected


def test_an_image_is_seen_once_for_all_of_its_rows(tuning: Data, model: QSiT, monkeypatch) -> None:
    seen = []
    real = model.engine.encode
    monkeypatch.setattr(model.engine, "encode", lambda tiles, sizes: seen.extend(sizes) or real(tiles, sizes))
    rows = [*tuning.rows, question(BLUR, "A"), question("Is it sharp?\nA. Yes\nB. No", "B")]
    validate(model, rows, tuning.folder)
    assert len(seen) == 5


def test_a_table_of_levels_counts_true_against_predicted(tuning: Data, model: QSiT) -> None:
    figures = validate(model, tuning.rows, tuning.folder)
    expected = [[0] * 5 for _ in range(5)]
    for row, score in zip(tuning.rows[:5], model.score(tuning.pictures), strict=True):
        expected[LEVELS.index(SCALE.level(row.mos))][LEVELS.index(score.level)] += 1
    assert figures.confusion == expected
    assert figures.level_mass == pytest.approx(np.mean([score.level_mass for score in model.score(tuning.pictures)]))


def test_a_scale_on_which_lower_is_better_gives_the_same_agreement(tuning: Data, model: QSiT) -> None:
    turned = [replace(row, mos=100 - row.mos) for row in tuning.rows[:5]]
    straight = validate(model, tuning.rows[:5], tuning.folder)
    assert validate(model, turned, tuning.folder).srcc == straight.srcc
    assert validate(model, [replace(row, mos=None) for row in turned], tuning.folder).srcc == straight.srcc


def test_ratings_of_two_sources_are_not_put_on_one_scale(tuning: Data, model: QSiT) -> None:
    rows = list(tuning.rows[:5])
    other = [replace(row, mos=row.mos / 25 + 1, source="other") for row in rows[:4]]
    figures = validate(model, rows + other, tuning.folder)
    mine, others = (figures.by_source[name]["srcc"] for name in ("mine", "other"))
    assert figures.srcc == pytest.approx((mine + others) / 2)
    assert mine == validate(model, rows, tuning.folder).srcc


def test_groups_are_the_beginnings_of_ids_where_two_are_large_enough(tuning: Data, model: QSiT) -> None:
    blur = [replace(row, id=f"blur/{row.id}") for row in tuning.rows[:5]]
    noise = [replace(row, id=f"noise/{row.id}") for row in tuning.rows[:5]]
    figures = validate(model, blur + noise, tuning.folder)
    assert figures.by_group == {"blur": figures.srcc, "noise": figures.srcc}
    assert validate(model, blur + noise[:4], tuning.folder).by_group == {}


def test_fewer_than_three_ratings_have_no_agreement(tuning: Data, model: QSiT) -> None:
    figures = validate(model, tuning.rows[:5], tuning.folder, images=2)
    assert (figures.srcc, figures.counts["images"], figures.counts["score"]) == (None, 2, 2)
    assert figures.score_loss is not None


def test_figures_are_json_ready(tuning: Data, model: QSiT) -> None:
    import json

    figures = validate(model, [*tuning.rows, question(BLUR, "A")], tuning.folder)
    assert json.loads(json.dumps(figures.to_dict(), allow_nan=False))["counts"]["choices"] == 1


@pytest.mark.parametrize(
    ("text", "answer", "expected"),
    [
        (BLUR, "B", 1),
        (BLUR, "B.", 1),
        (BLUR, "C. nothing", 2),
        (BLUR, "Noise", 1),
        (BLUR, "noise.", 1),
        (BLUR + "\nAnswer with the option's letter from the given choices directly.", "A", 0),
        ("Describe it.", "A", None),
        ("Why?\nA. because", "A", None),
        ("Which?\nB. one\nA. other", "A", None),
    ],
)
def test_the_options_of_a_multiple_choice_question_are_found_in_a_row(
    text: str, answer: str, expected: int | None
) -> None:
    found = choice_of(question(text, answer))
    assert (None if found is None else found.answer) == expected
    if found is not None:
        assert (found.text, found.options) == ("What is wrong?", ("blur", "noise", "nothing"))


def test_options_without_the_right_one_are_an_error() -> None:
    with pytest.raises(ValueError, match="row q: the answer 'D' is none of its options blur, noise, nothing and none"):
        choice_of(question(BLUR, "D"))


def test_kinds_are_those_of_qbench() -> None:
    asked = {"Is it?": "yes-no", "Which one?": "what", "How sharp?": "how", "Describe it": None, "": None}
    assert {text: kind_of(text) for text in asked} == asked


def test_what_cannot_be_validated_is_named(tuning: Data, model: QSiT) -> None:
    with pytest.raises(ValueError, match="no way to answer 'aloud': give one of letter, generate"):
        validate(model, tuning.rows, tuning.folder, answers="aloud")
    with pytest.raises(ValueError, match="there are no rows to validate on"):
        validate(model, [], tuning.folder)
    with pytest.raises(ImageError, match=r"9\.png"):
        validate(model, [replace(tuning.rows[0], image="9.png")], tuning.folder)
    strange = replace(talk(), task="score")
    with pytest.raises(ValueError, match="row talk is a rating without level_probs, and its answer 'It is noisy.'"):
        validate(model, [strange], tuning.folder)
