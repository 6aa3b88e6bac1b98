"""Q-Align's, DeQA-Score's and ms-swift's JSON as rows, in the forms in which they are published."""

import json
from pathlib import Path

import pytest
from PIL import Image

from qsit_plugin.evaluation.datasets.ratings import DatasetError
from qsit_plugin.protocol import OFFICIAL, TRAINING_CONSISTENT
from qsit_plugin.training.data.choices import choice_of
from qsit_plugin.training.data.conversations import convert_conversations
from qsit_plugin.training.data.conversion import Conversion, Images, ScaleWarning
from qsit_plugin.training.data.formats import row_of
from qsit_plugin.training.data.rows import RowError, score_messages, to_llava, to_record, write_rows
from qsit_plugin.training.levels import LevelScale

UNCHECKED = Images(Path("photos"), Path("photos"), check=False)
QUESTION = "What's your opinion on the quality of this picture?\n<|image|>"


def converted(folder: Path, name: str, *records: dict, images: Images = UNCHECKED, **options) -> Conversion:
    path = folder / f"{name}.json"
    path.write_text(json.dumps(records), encoding="utf-8")
    return convert_conversations(name, path, images, **options)


def problem(result: Conversion) -> str:
    (found,) = [example for examples in result.problems.examples.values() for example in examples]
    return found


def talk(*texts: str) -> list[dict]:
    return [{"from": ("human", "gpt")[place % 2], "value": text} for place, text in enumerate(texts)]


def qalign(identity: str, image: str, level: str, **more) -> dict:
    said = f"The quality of the image is {level}."
    return {"id": identity, "image": image, "conversations": talk(QUESTION, said)} | more


def test_a_rating_of_q_align_is_asked_in_the_words_that_a_score_is_read_after(tmp_path: Path) -> None:
    (row,) = converted(tmp_path, "qalign", qalign("1.jpg->77.4", "koniq/1.jpg", "excellent")).rows
    assert row.messages == score_messages("excellent", TRAINING_CONSISTENT)
    assert (row.id, row.image, row.task, row.mos, row.source) == ("1.jpg->77.4", "koniq/1.jpg", "score", 77.4, "koniq")
    assert row.quality == LevelScale.named("koniq").score(77.4)
    assert LevelScale.named("koniq").number(row.level_probs or ()) == pytest.approx(77.4, abs=1e-3)


def test_its_level_is_held_against_its_rating(tmp_path: Path) -> None:
    result = converted(tmp_path, "qalign", qalign("1.jpg->77.4", "koniq/1.jpg", "fair"))
    assert problem(result) == "row 0 (1.jpg->77.4): the text says fair, a MOS of 77.4 is excellent on the scale koniq"


def test_its_fine_tuning_splits_have_the_rating_as_text_and_need_a_range(tmp_path: Path) -> None:
    record = qalign("agiqa3k/1.jpg->1.96", "agi-cgi/1.jpg", "fair", gt_score="1.96")
    assert "give --scale, or --range" in problem(converted(tmp_path, "qalign", record))
    (row,) = converted(tmp_path, "qalign", record, scale=LevelScale.custom(0, 4.4645)).rows
    assert (row.mos, row.quality) == (1.96, 1.96 / 4.4645)


def test_its_test_splits_are_paths_and_ratings_alone(tmp_path: Path) -> None:
    record = {"img_path": "agiqa3k/1.jpg", "gt_score": "3.9"}
    (row,) = converted(tmp_path, "qalign", record).rows
    assert (row.id, row.answer) == ("agiqa3k/1.jpg->3.9", "The quality of the image is good.")


def test_a_plain_id_leaves_the_level_alone(tmp_path: Path) -> None:
    (row,) = converted(tmp_path, "qalign", qalign("7", "mine/1.jpg", "poor")).rows
    assert (row.id, row.mos, row.level_probs, row.quality, row.source) == ("7", None, None, None, "qalign")
    assert row.answer == "The quality of the image is poor."


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (qalign("1->77", "koniq/1.jpg", "great"), "is not 'The quality of the image is' and a level"),
        (qalign("1->77", ["a.jpg", "b.jpg"], "good"), "a rating is of one image, this is of 2"),  # type: ignore[arg-type]
        (qalign("1", "1.jpg", "good", gt_score="high"), "its gt_score: 'high' is not a finite number"),
        ({"image": "1.jpg"}, "neither a rating nor an answer that says a level"),
        ({"img_path": "agiqa3k/1.jpg", "gt_score": 7}, "7.0 is outside 0 to 5"),
    ],
)
def test_a_malformed_rating_of_q_align_is_a_bad_row(tmp_path: Path, record: dict, message: str) -> None:
    assert message in problem(converted(tmp_path, "qalign", record))


def test_a_profile_that_no_rating_can_be_worded_in_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="ends in a space"):
        converted(tmp_path, "qalign", qalign("1.jpg->77.4", "koniq/1.jpg", "excellent"), profile=OFFICIAL)


def deqa(norm: float, level: str, shares: list[float] | None, **more) -> dict:
    record = qalign("1.jpg->70.5", "KONIQ/images/1.jpg", level) | {"gt_score": 70.5, "gt_score_norm": norm, "std": 13}
    return record | {"std_norm": 0.6} | ({} if shares is None else {"level_probs": shares}) | more


def test_mos_deviation_and_soft_labels_of_deqa_come_from_its_file(tmp_path: Path) -> None:
    (row,) = converted(tmp_path, "deqa", deqa(4.0, "good", [0.2, 0.6, 0.2, 0, 0])).rows
    assert (row.mos, row.quality, row.level_probs, row.source) == (4.0, 0.75, (0.2, 0.6, 0.2, 0, 0), "deqa")
    assert row.messages == score_messages("good", TRAINING_CONSISTENT)
    (made,) = converted(tmp_path, "deqa", deqa(4.0, "good", None)).rows
    assert made.level_probs == pytest.approx(LevelScale.custom(1, 5).soft(4.0, 0.6), abs=1e-6)


def test_with_a_range_deqas_rating_is_the_published_one(tmp_path: Path) -> None:
    scale = LevelScale.custom(0, 94)
    (row,) = converted(tmp_path, "deqa", deqa(4.0, "good", [0, 1, 0, 0, 0]), scale=scale).rows
    assert (row.mos, row.quality) == (70.5, 0.75)
    (made,) = converted(tmp_path, "deqa", deqa(4.0, "good", None), scale=scale).rows
    assert made.level_probs == pytest.approx(scale.soft(70.5, 13), abs=1e-6)


def test_a_rating_on_an_edge_gets_our_word_since_deqa_closes_the_parts_on_the_other_side(tmp_path: Path) -> None:
    (row,) = converted(tmp_path, "deqa", deqa(4.2, "good", None)).rows
    assert row.answer == "The quality of the image is excellent."
    assert "the text says good" in problem(converted(tmp_path, "deqa", deqa(4.3, "good", None)))


def test_shares_that_deqa_has_cut_at_zero_are_brought_to_one_and_others_refused(tmp_path: Path) -> None:
    (row,) = converted(tmp_path, "deqa", deqa(4.8, "excellent", [0.84, 0.21, 0, 0, 0])).rows
    assert row.level_probs == pytest.approx((0.8, 0.2, 0, 0, 0))
    assert "sum to 1" in problem(converted(tmp_path, "deqa", deqa(4.8, "excellent", [0.4, 0.1, 0, 0, 0])))
    assert "five numbers" in problem(converted(tmp_path, "deqa", deqa(4.8, "excellent", [0.8, 0.2])))


def many_of_deqa(turned: bool) -> list[dict]:
    scale, records = LevelScale.custom(1, 5), []
    for place in range(50):
        mos = 1.1 + 3.8 * place / 49
        shares = [*scale.soft(mos, 0.6)]
        records.append(deqa(mos, scale.level(mos) or "", shares[::-1] if turned else shares))
    return records


def test_soft_labels_in_the_wrong_order_are_said_to_be(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    assert converted(tmp_path, "deqa", *many_of_deqa(turned=False)).warnings == []
    assert not recwarn
    with pytest.warns(ScaleWarning, match="not on the range of the ratings .* turn level_probs to excellent to bad"):
        result = converted(tmp_path, "deqa", *many_of_deqa(turned=True))
    assert len(result.warnings) == 1


def test_deqas_rows_are_checked_again_on_their_own_range(tmp_path: Path) -> None:
    first = converted(tmp_path, "deqa", *many_of_deqa(turned=False))
    rows = write_rows(tmp_path / "rows.jsonl", first.rows)
    assert convert_conversations("jsonl", rows, UNCHECKED).rows == first.rows
    changed = to_record(first.rows[0]) | {"mos": 4.9}
    assert "a MOS of 4.9 is excellent on the scale deqa" in problem(converted(tmp_path, "jsonl", changed))


def swift(*texts: str, images: object = None, **more) -> dict:
    turns = [{"role": ("user", "assistant")[place % 2], "content": text} for place, text in enumerate(texts)]
    return {"messages": turns} | ({} if images is None else {"images": images}) | more


def test_a_conversation_of_ms_swift_keeps_its_turns_and_the_places_of_its_images(tmp_path: Path) -> None:
    record = swift("<image>Sharp?", "No.", "And <image> this?", "Yes.", images=["1.jpg", {"path": "2.jpg"}])
    (row,) = converted(tmp_path, "swift", record).rows
    assert (row.id, row.image, row.task, row.source) == ("swift-0", ("1.jpg", "2.jpg"), "interpret", "swift")
    assert row.messages[0]["content"] == [{"type": "image"}, {"type": "text", "text": "Sharp?"}]
    assert [part["type"] for part in row.messages[2]["content"]] == ["text", "image", "text"]


def test_a_text_without_images_is_a_row_and_survives_both_forms(tmp_path: Path) -> None:
    (row,) = converted(tmp_path, "swift", swift("What is blur?", "A lack of detail.")).rows
    assert (row.image, row.images) == (None, ())
    again = convert_conversations("jsonl", write_rows(tmp_path / "rows.jsonl", [row]), UNCHECKED)
    assert again.rows == [row]
    assert "image" not in to_llava(row)
    assert converted(tmp_path, "llava", to_llava(row)).rows[0].messages == row.messages


def test_several_images_survive_both_forms(tmp_path: Path) -> None:
    (row,) = converted(tmp_path, "swift", swift("<image><image>Which?", "1.", images=["1.jpg", "2.jpg"])).rows
    assert convert_conversations("jsonl", write_rows(tmp_path / "r.jsonl", [row]), UNCHECKED).rows == [row]
    assert to_llava(row)["image"] == ["1.jpg", "2.jpg"]
    assert converted(tmp_path, "llava", to_llava(row)).rows[0].images == ("1.jpg", "2.jpg")


def test_the_older_form_has_query_response_and_history(tmp_path: Path) -> None:
    record = {"query": "Why?", "response": "So.", "history": [["Sharp?", "No."]], "images": ["1.jpg"]}
    (row,) = converted(tmp_path, "swift", record).rows
    texts = ["".join(part.get("text", "[image]") for part in turn["content"]) for turn in row.messages]
    assert texts == ["[image]Sharp?", "No.", "Why?", "So."]


def test_parts_as_trl_has_them_are_read(tmp_path: Path) -> None:
    parts = [{"type": "image"}, {"type": "text", "text": "Sharp?"}]
    turns = [{"role": "user", "content": parts}, {"role": "assistant", "content": [{"type": "text", "text": "No."}]}]
    (row,) = converted(tmp_path, "swift", {"messages": turns, "images": ["1.jpg"]}).rows
    assert row.messages[0]["content"] == parts


def test_an_answer_that_says_a_level_is_a_rating(tmp_path: Path) -> None:
    record = swift("<image>Rate it.", "The quality of the image is good.", images=["1.jpg"])
    (row,) = converted(tmp_path, "swift", record).rows
    assert (row.task, row.messages) == ("score", score_messages("good", TRAINING_CONSISTENT))


def test_system_prompts_are_left_out_and_that_is_said(tmp_path: Path) -> None:
    prompt = {"role": "system", "content": "You are helpful."}
    record = swift("<image>Sharp?", "No.", images=["1.jpg"])
    record["messages"].insert(0, prompt)
    result = converted(tmp_path, "swift", record, swift("Why?", "So."), {"query": "a", "response": "b", "system": "c"})
    assert [len(row.messages) for row in result.rows] == [2, 2, 2]
    assert result.notes == ["system prompt (the chat template of the checkpoint has its own): left out of 2 rows"]


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (swift("<image><image>Why?", "So.", images=["1.jpg"]), "it names 1 images, but its conversation shows 2"),
        (swift("<image>Why?", "So.", images=["1.jpg", "2.jpg"]), "it names 2 images, but its conversation shows 1"),
        (swift("<image>Why?", "So.", images=["http://a/1.jpg"]), "must be relative"),
        (swift("<image>Why?", "So.", images=[5]), "it names no image, but 5"),
        (swift("Why?"), "pairs of a question and an answer"),
        (swift("Why?", "So.", "Ah."), "pairs of a question and an answer"),
        ({"messages": [{"role": "tool", "content": "x"}] * 2}, "human or gpt"),
        ({"query": "Why?"}, "neither messages nor query and response"),
        ({"query": "b", "response": "c", "history": [["a"]]}, "pairs of a question"),
        ({"query": "b", "response": "c", "history": ["ab"]}, "history must be a list of pairs"),
        ({"messages": "Why?"}, "neither messages"),
    ],
)
def test_a_malformed_conversation_of_ms_swift_is_a_bad_row(tmp_path: Path, record: dict, message: str) -> None:
    assert message in problem(converted(tmp_path, "swift", record))


def test_absolute_paths_below_the_image_folder_are_accepted(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    Image.new("RGB", (8, 8)).save(folder / "1.png")
    record = swift("<image>Why?", "So.", images=[str(folder / "1.png")])
    (row,) = converted(tmp_path, "swift", record, images=Images(folder, tmp_path)).rows
    assert row.image == "photos/1.png"


def test_one_missing_image_of_several_is_named(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "1.png")
    record = swift("<image><image>Which?", "1.", images=["1.png", "2.png"])
    result = converted(tmp_path, "swift", record, images=Images(tmp_path, tmp_path))
    assert problem(result) == f"row 0 (without id): 2.png is not in {tmp_path}"


@pytest.mark.parametrize(
    ("name", "record"),
    [
        ("swift", swift("<image>Why?", "So.", images=["1.jpg"])),
        ("swift", {"query": "Why?", "response": "So."}),
        ("deqa", deqa(4.0, "good", None)),
        ("qalign", qalign("1.jpg->77.4", "koniq/1.jpg", "excellent")),
    ],
)
def test_training_on_such_a_file_itself_is_refused_with_the_command_that_makes_rows(name: str, record: dict) -> None:
    with pytest.raises(RowError, match=f"make rows of the file first, by qsit train convert {name}"):
        row_of(record, 0, "mine")


def test_json_has_no_splits_to_choose(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no split 'test': give one of all"):
        converted(tmp_path, "swift", swift("Why?", "So."), split="test")


def test_options_about_several_images_or_none_are_no_multiple_choice_question(tmp_path: Path) -> None:
    asked = "Which is sharper?\nA. the first\nB. the second"
    records = [
        swift(f"<image>{asked}", "A", images=["1.jpg"]),
        swift(f"<image><image>{asked}", "A", images=["1.jpg", "2.jpg"]),
        swift(asked, "A"),
    ]
    one, two, none = (choice_of(row) for row in converted(tmp_path, "swift", *records).rows)
    assert one is not None
    assert (one.image, two, none) == ("1.jpg", None, None)
