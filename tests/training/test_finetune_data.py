"""What a model is trained on: the tokens of inference, the answers and what ends them, and nothing that is wrong."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.training.runs import Data, rating, require_training, talk

require_training()

import qsit_plugin  # noqa: E402
from qsit_plugin.chat import Conversation, stop_ids  # noqa: E402
from qsit_plugin.training import run as finetune  # noqa: E402
from qsit_plugin.training.config import ConfigError  # noqa: E402
from qsit_plugin.training.data.collator import IGNORED, Collator  # noqa: E402
from qsit_plugin.training.data.dataset import QualityDataset, supervised_texts  # noqa: E402
from qsit_plugin.training.data.rows import TrainingRow, score_messages, write_rows  # noqa: E402
from qsit_plugin.training.data.tokens import check_profile  # noqa: E402
from qsit_plugin.training.forward import forward  # noqa: E402
from qsit_plugin.training.levels import LevelScale  # noqa: E402


@pytest.fixture(scope="module")
def model(tuning: Data) -> qsit_plugin.QSiT:
    return qsit_plugin.load(tuning.base, device="cpu")


def dataset_of(tuning: Data, model: qsit_plugin.QSiT, rows=None, template: str | None = None, **options):
    opened = model.checkpoint
    settings = {
        "conversation": Conversation(
            opened.tokenizer, template or opened.chat_template, model.conversation.image_token_id
        ),
        "profile": opened.profile,
        "tiling": opened.tiling,
        "stop_ids": stop_ids(opened.model, opened.tokenizer),
        "max_tokens": 32768,
    }
    return QualityDataset(tuning.rows if rows is None else rows, tuning.folder, **settings | options)


def batch_of(tuning: Data, model: qsit_plugin.QSiT, numbers, **changes):
    dataset = dataset_of(tuning, model)
    collator = Collator(model.conversation.image_token_id, 0, tuning.config(tuning.folder, **changes))
    return collator([dataset[number] for number in numbers])


def test_training_sees_exactly_what_inference_sees(tuning: Data, model) -> None:
    """Pictures of five sizes and a conversation in one batch, against each picture scored by the public face."""
    batch = batch_of(tuning, model, [0, 5, 1, 2, 3, 4])
    with torch.no_grad():
        logits = forward(model.checkpoint.model, batch, model.checkpoint.tiling)
    found = logits[batch["level_row"], batch["level_place"]][:, list(model.profile.level_token_ids)]
    expected = model.level_logits(tuning.pictures)
    assert batch["level_row"].tolist() == [0, 2, 3, 4, 5]
    assert (found - expected).abs().max() < 1e-4
    assert expected.std(0).min() > 1e-2  # the pictures differ, so a mix-up of them would show


def test_the_level_words_stand_where_the_score_is_read(tuning: Data, model) -> None:
    batch = batch_of(tuning, model, range(6))
    words = batch["targets"][batch["level_row"], batch["level_place"]].tolist()
    ids = model.profile.level_token_ids
    assert [ids.index(word) for word in words] == [0, 1, 2, 3, 4]  # excellent to bad, as the pictures are rated


def test_answers_and_the_end_of_each_turn_are_learned_and_nothing_else(tuning: Data, model) -> None:
    dataset = dataset_of(tuning, model)
    decode = model.checkpoint.tokenizer.decode
    learned = [decode(tokens.ids[tokens.learned].tolist()) for tokens in dataset.tokens]
    assert learned[0] == "The quality of the image is excellent.<|im_end|>"
    assert learned[5] == "It is noisy.<|im_end|>It is not sharp.<|im_end|>"
    for tokens in dataset.tokens:
        last = tokens.ids[tokens.learned][-1]
        assert last == model.checkpoint.tokenizer.convert_tokens_to_ids("<|im_end|>")
        assert int(last) in model.stop_ids  # what ends an answer at inference


def test_a_second_question_is_asked_in_the_words_of_the_template(tuning: Data, model) -> None:
    tokens = dataset_of(tuning, model).tokens[5]
    text = model.checkpoint.tokenizer.decode(tokens.ids.tolist())
    assert text == (
        "<|im_start|>user\n<image>\nIs it noisy?<|im_end|>\n<|im_start|>assistant\nIt is noisy.<|im_end|>\n"
        "<|im_start|>user\nAnd sharp?<|im_end|>\n<|im_start|>assistant\nIt is not sharp.<|im_end|>"
    )


def test_the_first_row_of_each_task_is_shown_with_what_is_learned(tuning: Data, model) -> None:
    dataset = dataset_of(tuning, model)
    score, interpret = supervised_texts(dataset, model.checkpoint.tokenizer)
    assert "[image]\nAssume you are an image quality evaluator." in score
    assert score.endswith("assistant\n«The quality of the image is excellent.<|im_end|>»")
    assert "«It is noisy.<|im_end|>»\n<|im_start|>user" in interpret


def test_nothing_is_learned_from_padding_or_questions(tuning: Data, model) -> None:
    batch = batch_of(tuning, model, [0, 3])
    dataset = dataset_of(tuning, model)
    assert (batch["targets"] != IGNORED).sum(-1).tolist() == [int(dataset.tokens[n].learned.sum()) for n in (0, 3)]
    assert torch.equal(batch["weights"] > 0, batch["targets"] != IGNORED)


def test_a_batch_in_which_nothing_is_learned_is_refused(tuning: Data, model) -> None:
    sample = dataset_of(tuning, model)[0]
    nothing = replace(sample, tokens=replace(sample.tokens, learned=sample.tokens.learned & False))
    collator = Collator(model.conversation.image_token_id, 0, tuning.config(tuning.folder))
    with pytest.raises(ValueError, match=r"no token is learned in the batch of 0.png->95.0: .* convert them again"):
        collator([nothing])


TRIMMING = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n<image>{{ m['content'][-1]['text'][:4] }}<|im_end|>"
    "{% endfor %}"
)
ENDLESS = (
    "{% for m in messages %}{{ m['role'] }}:{% for p in m['content'] %}"
    "{{ '<image>' if p['type'] == 'image' else p['text'] }}{% endfor %};{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)


@pytest.mark.parametrize(
    ("template", "message"),
    [(TRIMMING, "does not render the answer"), (ENDLESS, "which ends no answer .* fix the template or eos_token_id")],
)
def test_a_template_that_hides_or_never_ends_an_answer_is_refused(tuning, model, template, message) -> None:
    with pytest.raises(ConfigError, match=message):
        dataset_of(tuning, model, template=template)


def test_what_is_wrong_with_rows_is_counted_and_listed_before_training(tuning: Data, model, tmp_path: Path) -> None:
    (tuning.folder / "broken.png").write_bytes(b"this is no picture")
    profile = tuning.profile
    rows = [rating(f"lost{number}.png", 50.0, profile) for number in range(7)]
    rows += [rating("broken.png", 50.0, profile), rating("0.png", 50.0, replace(profile, question="How good?"))]
    with pytest.raises(ConfigError) as caught:
        dataset_of(tuning, model, rows)
    lines = str(caught.value).splitlines()
    assert lines[0] == "missing image: 7, the first 5:"
    assert lines[1] == f"  lost0.png->50.0: lost0.png is not in {tuning.folder}"
    assert lines[6] == "unreadable image: 1:"
    assert "cannot identify image file" in lines[7]
    assert lines[8] == "unusable text: 1:"
    assert "it is a rating, but not in the profile's words" in lines[9]
    assert lines[-1].startswith("9 of 9 rows cannot be trained on, so nothing is: fix them")


def test_an_image_of_too_many_tokens_is_refused_and_never_cut(tuning: Data, model) -> None:
    with pytest.raises(ConfigError, match=r"3.png->30.0: 2\d\d tokens, 1\d\d of its image 3.png; allowed are 200"):
        dataset_of(tuning, model, max_tokens=200)


def test_a_profile_whose_words_join_with_the_prefix_is_refused(model) -> None:
    tokenizer = model.checkpoint.tokenizer
    check_profile(model.profile, tokenizer)
    words = tuple(word.strip() for word in model.profile.level_words)
    apart = replace(
        model.profile,
        answer_prefix=model.profile.answer_prefix + " ",  # as the official profile has it
        level_words=words,
        level_token_ids=tuple(tokenizer.encode(word, add_special_tokens=False)[0] for word in words),
    )
    with pytest.raises(ConfigError, match=r"the profile tokenises badly: .* Give profile: training"):
        check_profile(apart, tokenizer)


def test_a_question_with_the_image_token_in_it_is_refused(tuning: Data, model) -> None:
    row = talk()
    row.messages[0]["content"][0]["text"] = "Is <image> noisy?"
    with pytest.raises(ConfigError, match="rendered with 2 image tokens instead of 1: take '<image>' out of its text"):
        dataset_of(tuning, model, [row])


@pytest.mark.parametrize(
    ("labels", "warned"), [("votes", True), ("rating", False)], ids=["votes, as files of old hold", "ratings"]
)
def test_a_run_warns_of_soft_labels_that_are_not_on_the_range_of_their_ratings(
    tuning: Data, tmp_path: Path, labels: str, warned: bool
) -> None:
    scale = LevelScale.named("koniq")
    rows = []
    for number, (mos, votes) in enumerate(((70.0, (0, 60, 40, 0, 0)), (80.0, (10, 70, 20, 0, 0)))):
        soft = scale.soft(mos, votes=votes) if labels == "votes" else scale.soft(mos, 12.0)
        messages = score_messages(scale.level(mos) or "", tuning.profile)
        rows.append(TrainingRow(f"{number}", f"{number}.png", "score", messages, mos, soft, "koniq"))
    write_rows(tmp_path / "koniq.jsonl", rows)
    said: list[str] = []
    finetune.prepare(tuning.config(tmp_path / "out", data=str(tmp_path / "koniq.jsonl")), say=said.append)
    assert any("not on the range of the ratings (koniq)" in line for line in said) == warned


def test_a_run_warns_of_soft_labels_that_contradict_the_words_of_their_rows(tuning: Data, tmp_path: Path) -> None:
    rows = [replace(row, level_probs=row.level_probs and row.level_probs[::-1]) for row in tuning.rows]
    write_rows(tmp_path / "odd.jsonl", rows)
    said: list[str] = []
    finetune.prepare(tuning.config(tmp_path / "out", data=str(tmp_path / "odd.jsonl")), say=said.append)
    assert any("more than a level away from the word in their text" in line for line in said)
