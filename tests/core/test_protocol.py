"""Profiles: what they must hold, where they come from, and the wording of choices."""

import json
from dataclasses import asdict, replace

import pytest

from qsit_plugin.protocol import OFFICIAL, TRAINING_CONSISTENT, ProfileError, ScoreProfile, multiple_choice, profile_for


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
    ],
)
def test_a_profile_that_cannot_work_is_refused(change, message):
    with pytest.raises(ProfileError, match=message):
        replace(OFFICIAL, **change)


def test_the_file_has_exactly_the_keys_that_others_build_on(tmp_path):
    content = json.loads(OFFICIAL.save(tmp_path).read_text(encoding="utf-8"))
    expected = ["question", "answer_prefix", "level_words", "level_token_ids", "weights", "scope", "scales"]
    assert list(content) == expected


def test_a_choice_is_worded_as_in_the_released_evaluation():
    assert multiple_choice("Which?", ["noise", "blur"]) == "Which?\nA. noise\nB. blur"
