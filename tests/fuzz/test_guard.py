"""The guard notices what it is there for. The cases are in misbehaving.py."""

import contextlib

import pytest

from qsit_plugin.images.reading import ImageError
from tests.fuzz import images, misbehaving
from tests.fuzz.case import VALUES, Damage, Family, chosen
from tests.fuzz.guard import MEMORY_IS_WATCHED, Guard
from tests.fuzz.json_damage import value_damages
from tests.fuzz.pictures import pictures

ROOM = 2**28
"""Bytes: an interpreter without torch takes a tenth of it, the cases that take memory twice to four times as much."""


@pytest.fixture(scope="module")
def ending(tmp_path_factory):
    """name of a case -> how it ended; one worker runs them in order, and is started again where one brought it down."""
    with Guard(tmp_path_factory.mktemp("cases"), seconds=5, memory=ROOM) as guard:
        yield {does.__name__: guard.run("misbehaving", number, 0) for number, does in enumerate(misbehaving.CASES)}


def test_a_score_and_an_allowed_error_end_well(ending):
    assert ending["_ends_well"].outcome == "score 0.5" and not ending["_ends_well"].trouble
    assert ending["_raises_what_is_allowed"].outcome.startswith("KeyError: ")
    assert not ending["_raises_what_is_allowed"].trouble


def test_another_error_is_reported_with_its_traceback_and_what_was_damaged(ending):
    report = ending["_raises_something_else"].report()
    assert report.startswith("case 2: raises_something_else\n")
    assert "Traceback" in report and "misbehaving.py" in report and "nobody expected this" in report


def test_an_error_that_says_nothing_is_a_failure(ending):
    assert "a message of 4 characters" in ending["_raises_in_half_a_word"].trouble


def test_a_wrong_result_without_an_error_is_a_failure(ending):
    assert "a score of NaN" in ending["_gives_a_wrong_result"].trouble


def test_a_case_that_hangs_is_ended_and_its_stack_is_shown(ending):
    assert "more than 5 s" in ending["_hangs"].trouble
    if MEMORY_IS_WATCHED:  # a signal makes faulthandler write; Windows has none for it
        assert "in _hangs" in ending["_hangs"].trouble


def test_a_crash_is_a_failure_and_the_next_case_runs(ending):
    assert "died with exit code" in ending["_crashes"].trouble and "in _crashes" in ending["_crashes"].trouble
    assert "more than 0.25" in ending["_takes_memory_and_goes_on"].trouble or not MEMORY_IS_WATCHED


@pytest.mark.skipif(not MEMORY_IS_WATCHED, reason="memory is not watched on Windows")
def test_memory_taken_for_a_moment_is_noticed(ending):
    assert "it took" in ending["_takes_memory_for_a_moment"].trouble


def test_the_damaged_files_of_a_case_can_be_kept(tmp_path):
    with Guard(tmp_path, keep=True) as guard:
        assert (guard.run("misbehaving", 0, 7).folder / "damaged").read_text() == "kept"


def test_a_number_and_a_seed_always_give_the_same_damage(tmp_path):
    made = []
    for name in ("first", "second"):
        folder = tmp_path / name
        folder.mkdir()
        with contextlib.suppress(ImageError):
            images.case(11, 3).run(folder)
        made.append((images.case(11, 3).label, (folder / "image").read_bytes()))
    assert made[0] == made[1]
    assert made[0][1] not in pictures().values()


def test_every_damage_of_a_family_gets_its_turn_before_one_comes_again():
    families = {
        VALUES: Family(3, value_damages({"a.json": {"b": {"c": 1}}})),
        "other": Family(2, [Damage("x", print), Damage("y", print)]),
    }
    first = [chosen(families, number, 5) for number in range(5 * 19)]
    values = [found[-1].label for number, found in enumerate(first) if number % 5 < 3]
    assert len(set(values)) == len(families[VALUES].damages) and all(len(found) == 1 for found in first[:5])
    assert len(first[8]) == 2  # "other" has two damages: in its second cycle another comes before them
