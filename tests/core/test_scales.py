"""Stored calibrations: a malformed one is refused when a profile is read, with what is wrong and the cure."""

import json
from dataclasses import asdict

import pytest

from qsit_plugin.protocol import OFFICIAL, ProfileError, ScoreProfile, profile_for

LOGISTIC = {"kind": "logistic4", "parameters": [90.0, 10.0, 0.5, 0.1], "range": [0, 100]}
ISOTONIC = {"kind": "isotonic", "parameters": [[0.1, 0.5, 0.9], [10.0, 10.0, 60.0]], "range": [0, 100]}


def read(folder, scales):
    content = json.loads(json.dumps(asdict(OFFICIAL))) | {"scales": scales}
    (folder / "qsit.json").write_text(json.dumps(content), encoding="utf-8")
    return profile_for(folder)


def test_well_formed_scales_of_both_kinds_are_read(tmp_path):
    assert read(tmp_path, {"koniq": LOGISTIC, "spaq": ISOTONIC}).scales == {"koniq": LOGISTIC, "spaq": ISOTONIC}


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("koniq.json", "exactly the keys kind, parameters and range, and may have fingerprint; got 'koniq.json'"),
        ({"kind": "logistic4", "parameters": [1, 0, 0, 1]}, "exactly the keys"),
        (LOGISTIC | {"fit": "x"}, "exactly the keys"),
        (LOGISTIC | {"kind": "cubic"}, "unknown kind 'cubic'; known: logistic4, isotonic"),
        (LOGISTIC | {"range": [100, 0]}, "low below high"),
        (LOGISTIC | {"range": [0, float("inf")]}, "two finite numbers"),
        (LOGISTIC | {"parameters": [90, 10, 0.5]}, "four finite numbers"),
        (LOGISTIC | {"parameters": [90, 10, "0.5", 0.1]}, "four finite numbers"),
        (LOGISTIC | {"parameters": [90, 10, 0.5, 0]}, "b4 not 0"),
        (LOGISTIC | {"parameters": [10, 90, 0.5, 0.1]}, "must rise, that is, b1 above b2; got b1 = 10, b2 = 90"),
        (ISOTONIC | {"parameters": [[0.1, 0.9]]}, r"needs parameters \[\[x …\], \[y …\]\]"),
        (ISOTONIC | {"parameters": [[0.1, 0.9], [1.0]]}, "two equally long lists"),
        (ISOTONIC | {"parameters": [[0.1], [1.0]]}, "at least two finite numbers"),
        (ISOTONIC | {"parameters": [[0.9, 0.1], [1.0, 2.0]]}, "x rise strictly"),
        (ISOTONIC | {"parameters": [[0.1, 0.9], [2.0, 1.0]]}, "must rise: no y below"),
        (ISOTONIC | {"parameters": [[0.1, 0.9], [2.0, 2.0]]}, "the last above the first"),
    ],
)
def test_a_malformed_scale_is_refused_with_the_file_and_the_cure(tmp_path, entry, message):
    with pytest.raises(ProfileError, match=message) as caught:
        read(tmp_path, {"koniq": entry})
    assert str(tmp_path / "qsit.json") in str(caught.value)
    assert "scale 'koniq'" in str(caught.value)
    assert "fit it again with qsit bench calibrate" in str(caught.value)


def test_a_scale_that_a_plain_stretch_would_hide_is_refused(tmp_path):
    with pytest.raises(ProfileError, match="'0-100' has the name of a plain stretch"):
        read(tmp_path, {"0-100": LOGISTIC})


def test_scales_must_be_named(tmp_path):
    with pytest.raises(ProfileError, match="scales must map names to calibrations"):
        read(tmp_path, [LOGISTIC])


def test_a_profile_is_saved_to_a_file_of_any_name(tmp_path):
    assert OFFICIAL.save(tmp_path / "mine.json") == tmp_path / "mine.json"
    assert ScoreProfile.load(tmp_path / "mine.json") == OFFICIAL
