"""Profiles: what they must hold, where they come from, and the wording of choices."""

import json
from dataclasses import asdict, replace

import pytest

from qsit_plugin.protocol import OFFICIAL, TRAINING_CONSISTENT, ProfileError, ScoreProfile, multiple_choice, profile_for
from qsit_plugin.weights import WeightsError


def test_a_profile_survives_saving_and_loading(tmp_path):
    scale = {"kind": "isotonic", "parameters": [[0.2, 0.8], [1.5, 4.0]], "range": [1, 5]}
    made = replace(TRAINING_CONSISTENT, scope="synthetic distortions", scales={"x": scale})
    made.save(tmp_path)
    assert ScoreProfile.load(tmp_path) == made


def test_a_folder_without_a_profile_gets_the_official_one(tmp_path):
    assert profile_for(tmp_path) == OFFICIAL


def test_the_profile_beside_a_checkpoint_wins_over_the_official_one(tmp_path):
    TRAINING_CONSISTENT.save(tmp_path)
    assert profile_for(tmp_path) == TRAINING_CONSISTENT
    assert profile_for(tmp_path, "official") == OFFICIAL


def test_an_unknown_profile_name_is_refused_with_the_known_ones(tmp_path):
    with pytest.raises(ProfileError, match="'oficial'.*official, training"):
        profile_for(tmp_path, "oficial")


def test_a_misspelt_key_is_an_error_and_never_ignored():
    content = asdict(OFFICIAL) | {"weigths": [1, 1, 1, 1, 1]}
    with pytest.raises(ProfileError, match="unknown keys \\['weigths'\\]"):
        ScoreProfile.from_dict(content)


def test_a_missing_key_is_named():
    with pytest.raises(ProfileError, match="missing keys \\['question'\\]"):
        ScoreProfile.from_dict({k: v for k, v in asdict(OFFICIAL).items() if k != "question"})


def test_broken_json_is_a_profile_error(tmp_path):
    (tmp_path / "qsit.json").write_text("{", encoding="utf-8")
    with pytest.raises(ProfileError, match="not valid JSON"):
        ScoreProfile.load(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"level_token_ids": (1, 2, 3, 4)}, "level_token_ids must hold 5"),
        ({"level_token_ids": (1, 2, 3, 4, 4)}, "five different tokens"),
        ({"level_words": ("Bad", "Poor", "Fair", "Good", "Excellent")}, "in this order"),
        ({"weights": "abcde"}, "weights must hold 5"),
        ({"weights": (float("nan"),) * 5}, "weights must hold numbers from 0 to 1.*nan"),
        ({"weights": (1e308, 0.75, 0.5, 0.25, 0)}, "weights must hold numbers from 0 to 1.*1e.308"),
        ({"weights": (10**400, 0.75, 0.5, 0.25, 0)}, "weights must hold numbers"),
        ({"weights": (1, 0.75, 0.5, 0.25, -3.8)}, "weights must hold numbers from 0 to 1.*-3.8"),
        ({"weights": (1, 0.75, None, 0.25, 0)}, "weights must hold numbers.*None"),
        ({"weights": (1, 0.75, "0.5", 0.25, 0)}, "weights must hold numbers.*'0.5'"),
        ({"weights": (True, 0.75, 0.5, 0.25, 0)}, "weights must hold numbers.*True"),
        ({"weights": (1, 0.5, 0.5, 0.25, 0)}, "weights must fall"),
        ({"weights": (0, 0.25, 0.5, 0.75, 1)}, "weights must fall"),
        ({"question": ["How?"]}, "question must be text.*got \\['How"),
        ({"question": " "}, "question must be text"),
        ({"question": "\ud800"}, "question must be text"),
        ({"question": "x" * 20_000}, "question must be text of 1 to 16,384"),
        ({"answer_prefix": None}, "answer_prefix must be text.*None"),
        ({"scope": 5}, "scope must be text.*5"),
        ({"scope_kind": "people"}, "scope_kind must be one of ratings, distortions, mixed, other; got 'people'"),
        ({"scope_kind": ["ratings"]}, "scope_kind must be one of"),
        ({"level_words": 5}, "level_words must hold 5"),
        ({"level_words": (1, 2, 3, 4, 5)}, "level_words must hold text"),
        ({"level_token_ids": ([1], [2], [3], [4], [5])}, "level_token_ids must hold whole numbers"),
        ({"level_token_ids": (True, 2, 3, 4, 5)}, "level_token_ids must hold whole numbers.*True"),
        ({"level_token_ids": (-1, 2, 3, 4, 5)}, "level_token_ids must hold whole numbers"),
        ({"scales": {"x": {"kind": "logistic4", "parameters": [10**400, 0, 0, 1], "range": [0, 1]}}}, "'x' needs"),
    ],
)
def test_a_profile_that_cannot_work_is_refused(change, message):
    with pytest.raises(ProfileError, match=message):
        replace(OFFICIAL, **change)


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"[]", b"[" * 100_000, b'"text"', b""])
def test_a_file_that_holds_no_profile_is_a_profile_error_that_names_it(tmp_path, content):
    (tmp_path / "qsit.json").write_bytes(content)
    with pytest.raises(ProfileError, match="qsit.json") as caught:
        ScoreProfile.load(tmp_path)
    assert caught.value.__cause__ is not None


def test_a_profile_error_is_a_weights_error_and_still_a_value_error():
    assert issubclass(ProfileError, WeightsError)
    assert issubclass(ProfileError, ValueError)


def test_the_file_has_exactly_the_keys_that_others_build_on(tmp_path):
    content = json.loads(OFFICIAL.save(tmp_path).read_text(encoding="utf-8"))
    expected = ["question", "answer_prefix", "level_words", "level_token_ids", "weights", "scope", "scales"]
    assert list(content) == expected


@pytest.mark.parametrize(
    ("scope", "kind"),
    [("human ratings", "ratings"), ("synthetic distortions", "distortions"), ("my raters", "other")],
)
def test_a_file_without_a_kind_of_scope_has_that_of_the_text(tmp_path, scope, kind):
    file = replace(OFFICIAL, scope=scope).save(tmp_path)
    assert "scope_kind" not in json.loads(file.read_text(encoding="utf-8"))
    assert ScoreProfile.load(file).kind == kind


def test_a_kind_of_scope_that_is_written_holds_whatever_the_text(tmp_path):
    made = replace(OFFICIAL, scope="photos and their distortions", scope_kind="mixed")
    found = ScoreProfile.load(made.save(tmp_path))
    assert (found, found.kind) == (made, "mixed")


def test_a_choice_is_worded_as_in_the_released_evaluation():
    assert multiple_choice("Which?", ["noise", "blur"]) == "Which?\nA. noise\nB. blur"
