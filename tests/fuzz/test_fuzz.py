"""Damaged checkpoints, profiles, adapters and images end in a score or in an error that says what is wrong.

The short form runs with all tests, the long one with ``-m slow``. A failing case can be run again alone, see
``python -m tests.fuzz --help``.
"""

import importlib

import pytest

from tests.fuzz.guard import MEMORY_IS_WATCHED, Guard

GENERATORS = ("checkpoints", "profiles", "adapters", "images")
SEEDS = {"short": 0, "long": 1}


@pytest.mark.parametrize("generator", GENERATORS)
def test_a_damaged_input_ends_in_a_score_or_a_named_error(generator, tmp_path):
    run(generator, "short", tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("generator", GENERATORS)
def test_thousands_of_damaged_inputs_end_in_a_score_or_a_named_error(generator, tmp_path):
    run(generator, "long", tmp_path)


def run(generator, form, scratch):
    if generator == "adapters":
        pytest.importorskip("peft", reason="adapters need peft")
    if not MEMORY_IS_WATCHED:
        pytest.skip("the memory of a case cannot be watched on Windows")
    number = importlib.import_module(f"tests.fuzz.{generator}").NUMBER[form]
    with Guard(scratch, generator) as guard:
        endings = [guard.run(case, SEEDS[form]) for case in range(number)]
    failed = [ending.report() for ending in endings if ending.trouble]
    again = f"again: python -m tests.fuzz {generator} --seed {SEEDS[form]} --keep --first NUMBER"
    assert not failed, "\n\n".join([f"{len(failed)} of {number} cases failed; {again}", *failed])
