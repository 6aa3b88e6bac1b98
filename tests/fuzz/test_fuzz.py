"""Damaged checkpoints, ONNX graphs, profiles, adapters and images end in a score or in an error that says why.

The short form runs with all tests, the long one with ``-m slow``. A failing case can be run again alone, see
``python -m tests.fuzz --help``.
"""

import importlib
import warnings

import pytest

from tests.fuzz.guard import MEMORY_IS_WATCHED, Guard

GENERATORS = ("checkpoints", "graphs", "profiles", "adapters", "images")
SEEDS = {"short": 0, "long": 1}


@pytest.fixture(scope="module")
def guard(tmp_path_factory):
    if not MEMORY_IS_WATCHED:
        warnings.warn("the memory that a case takes is not watched on Windows", stacklevel=1)
    with Guard(tmp_path_factory.mktemp("cases")) as guard:
        yield guard


@pytest.mark.parametrize("generator", GENERATORS)
def test_a_damaged_input_ends_in_a_score_or_a_named_error(generator, guard):
    run(generator, "short", guard)


@pytest.mark.slow
@pytest.mark.parametrize("generator", GENERATORS)
def test_thousands_of_damaged_inputs_end_in_a_score_or_a_named_error(generator, guard):
    run(generator, "long", guard)


def run(generator, form, guard):
    if generator == "adapters":
        pytest.importorskip("peft", reason="adapters need peft")
    if generator == "graphs":
        for package in ("onnx", "onnxruntime"):
            pytest.importorskip(package, reason="damaged graphs need onnx and onnxruntime")
    number = importlib.import_module(f"tests.fuzz.{generator}").NUMBER[form]
    endings = [guard.run(generator, case, SEEDS[form]) for case in range(number)]
    failed = [ending.report() for ending in endings if ending.trouble]
    again = f"again: python -m tests.fuzz {generator} --seed {SEEDS[form]} --keep --first NUMBER"
    assert not failed, "\n\n".join([f"{len(failed)} of {number} cases failed; {again}", *failed])
