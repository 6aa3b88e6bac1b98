"""Q-Bench's A1: both forms of the questions, the official lenient rule, and a run on the embedded model."""

import json
from importlib.resources import files

import numpy as np
import pytest
from PIL import Image

from qsit_plugin.evaluation.multiple_choice import (
    Answered,
    Question,
    accuracy,
    answer_questions,
    is_right,
    prompt,
    read_questions,
)

OFFICIAL_FORM = {
    "img_path": "a.png",
    "question": "How is the lighting?",
    "candidates": ["High", "Low", "Medium"],
    "correct_ans": "Low",
    "type": 2,
    "concern": 1,
}
HUB_FORM = {
    "id": 7,
    "image": "a.png",
    "question": "How is the lighting?",
    "option0": "High",
    "option1": "Low",
    "option2": "Medium",
    "option3": "N/A",
    "question_type": "2",
    "question_concern": "1",
    "correct_choice": "B",
}
EXPECTED = Question("a.png", "How is the lighting?", ("High", "Low", "Medium"), 1, "how", "other")


def written(path, rows):
    path.write_text(json.dumps(rows), encoding="utf-8")
    return path


@pytest.mark.parametrize("form", [OFFICIAL_FORM, HUB_FORM])
def test_both_forms_give_the_same_question(tmp_path, form):
    assert read_questions(written(tmp_path / "q.json", [form])) == [EXPECTED]


def test_one_object_a_line_and_an_image_column_of_the_hubs_library_are_read(tmp_path):
    line = json.dumps(HUB_FORM | {"image": {"bytes": None, "path": "a.png"}})
    (tmp_path / "q.jsonl").write_text(f"{line}\n{line}\n", encoding="utf-8")
    assert read_questions(tmp_path / "q.jsonl") == [EXPECTED, EXPECTED]


@pytest.mark.parametrize(("number", "label"), [(0, "yes-no"), (1, "what"), (2, "how")])
def test_types_have_q_benchs_own_labels(tmp_path, number, label):
    assert read_questions(written(tmp_path / "q.json", [OFFICIAL_FORM | {"type": number}]))[0].type == label


@pytest.mark.parametrize(
    ("number", "label"), [(0, "distortion"), (1, "other"), (2, "in-context distortion"), (3, "in-context other")]
)
def test_concerns_have_q_benchs_own_labels(tmp_path, number, label):
    assert read_questions(written(tmp_path / "q.json", [OFFICIAL_FORM | {"concern": number}]))[0].concern == label


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"img_path": None}, "question 1 needs img_path"),
        ({"question": ""}, "question 1 needs img_path .* and question"),
        ({"candidates": ["High"]}, "has 1 options"),
        ({"correct_ans": ""}, "no right answer among its options: '' .*test half are not public"),
        ({"type": 3}, r"has type 3; allowed are 0 to 2 \(yes-no, what, how\)"),
        ({"concern": "blur"}, "has concern 'blur'; allowed are 0 to 3"),
    ],
)
def test_a_wrong_question_is_named(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        read_questions(written(tmp_path / "q.json", [OFFICIAL_FORM, OFFICIAL_FORM | change]))


def test_the_prompt_is_the_official_scripts():
    assert prompt(EXPECTED) == "How is the lighting?\nA. High\nB. Low\nC. Medium\n"


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("B", True),
        (" B \n", True),
        ("B. Low", True),
        ("The answer is B.", True),
        ("Low", True),
        ("I think\nB\nis it", True),
        ("A. or B.", True),  # lenient: wrong letters are not looked for
        ("A", False),
        ("low", False),
        ("Low lighting", False),
        ("B) Low", False),
        ("The answer is B", False),
        ("", False),
    ],
)
def test_the_lenient_rule(text, right):
    assert is_right(text, ("High", "Low", "Medium"), 1) is right


def test_accuracies_are_counted_by_group_and_failed_photos_nowhere():
    yes = Question("a", "?", ("Yes", "No"), 0, "yes-no", "distortion")
    how = Question("b", "?", ("High", "Low", "Medium", "None"), 1, "how", None)
    answered = [
        Answered(yes, "A. Yes", (0.1, 0.9)),
        Answered(yes, "B. No", (0.8, 0.2)),
        Answered(how, "Low", (0.1, 0.7, 0.1, 0.1)),
        Answered(how, error="b: cannot be read"),
    ]
    found = accuracy(answered)
    assert found["overall"] == {"n": 3, "chance": pytest.approx(1.25 / 3), "string": 2 / 3, "letters": 2 / 3}
    assert found["types"]["yes-no"] == {"n": 2, "chance": 0.5, "string": 0.5, "letters": 0.5}
    assert found["types"]["how"] == {"n": 1, "chance": 0.25, "string": 1.0, "letters": 1.0}
    assert list(found["concerns"]) == ["distortion"]
    assert found["failed"] == 1


def test_a_run_without_any_photo_has_no_accuracy():
    with pytest.raises(ValueError, match="none of 1 questions was answered"):
        accuracy([Answered(EXPECTED, error="no such file")])


@pytest.fixture
def album(tmp_path):
    """The demo's sharp photo, with strong noise, much too dark, and the questions about it; one photo is missing."""
    rng = np.random.default_rng(0)
    with (files("qsit_plugin") / "demo" / "astronaut.jpg").open("rb") as stream:
        photo = Image.open(stream).convert("RGB").resize((320, 320), Image.Resampling.LANCZOS)
    noisy = np.clip(np.asarray(photo) + rng.normal(0, 60, (320, 320, 3)), 0, 255).astype(np.uint8)
    Image.fromarray(noisy).save(tmp_path / "noise.png")
    photo.point(lambda value: value // 6).save(tmp_path / "dark.png")
    names = ["blur", "noise", "underexposure", "banding"]
    asked = {
        "question": "Which distortion is most visible in this image?",
        "candidates": names,
        "type": 1,
        "concern": 0,
    }
    rows = [
        asked | {"img_path": "noise.png", "correct_ans": "noise"},
        asked | {"img_path": "gone.png", "correct_ans": "noise"},
        asked | {"img_path": "dark.png", "correct_ans": "underexposure"},
    ]
    written(tmp_path / "questions.json", rows)
    return tmp_path


def test_the_embedded_model_answers_a_made_up_llvisionqa(nano, album):
    answered = list(answer_questions(nano, read_questions(album / "questions.json"), album))
    found = accuracy(answered)
    assert [one.error is None for one in answered] == [True, False, True]
    assert "gone.png" in answered[1].error
    assert found["types"]["what"]["n"] == 2
    assert found["overall"]["string"] == found["overall"]["letters"] == 1.0
    assert sum(answered[0].probabilities) == pytest.approx(1.0)


def test_letters_alone_write_no_text(nano, album):
    answered = list(answer_questions(nano, read_questions(album / "questions.json")[:1], album, rules=["letters"]))
    assert answered[0].text is None
    assert set(accuracy(answered, ["letters"])["overall"]) == {"n", "chance", "letters"}
