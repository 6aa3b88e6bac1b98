"""Writing: what ends an answer, and how it is streamed."""

from itertools import cycle

import pytest

from qsit_plugin.engines.generation import Row, find_loop, text_pieces


@pytest.fixture
def run(nano):
    """Give an answer scripted tokens (10 for the model's token 10), 0 for its stop token; (written, reason, kept)."""

    def run(tokens, **options):
        row = Row(nano, None, room=1000, **({"max_new_tokens": 100} | options))
        for token in tokens:
            if row.cancelled() or (row.take(token or min(nano.stop_ids)), row.reason)[1]:
                break
        return row.written, row.reason, row.keep

    return run


def test_the_end_token_stops_and_is_not_written(run):
    assert run([5, 6, 0, 7]) == ([5, 6], "stop", 2)


def test_the_length_limit_ends_the_answer(run):
    assert run(range(11, 100), max_new_tokens=4) == ([11, 12, 13, 14], "length", 4)


def test_a_repeated_passage_ends_the_answer_and_one_copy_is_kept(run):
    written, reason, kept = run([11, 12, *([7, 8, 9, 10] * 9)])
    assert (reason, written[:kept]) == ("repetition", [11, 12, 7, 8, 9, 10])


def test_a_doubled_sentence_is_no_loop():
    assert find_loop([7, 8, 9, 10, 7, 8, 9, 10]) is None


def test_a_word_said_three_times_is_no_loop_but_twelve_times_is():
    assert find_loop([1, 2, 5, 5, 5]) is None
    assert find_loop([1, 2, *[5] * 12]) == 3


def test_cancel_is_asked_between_tokens(run):
    asked = iter([False, False, True])
    assert run(cycle([11, 12, 13]), cancel=lambda: next(asked)) == ([11, 12], "cancelled", 2)


def test_a_length_below_one_is_refused(run):
    with pytest.raises(ValueError, match="at least 1, got 0"):
        run([1], max_new_tokens=0)


def test_half_a_character_waits_for_its_other_half():
    parts = {1: b"a", 2: b"\xc3", 3: b"\xa9", 4: b"!"}
    pieces = text_pieces(lambda ids: b"".join(parts[i] for i in ids).decode(errors="replace"), iter([1, 2, 3, 4]))
    assert list(pieces) == ["a", "é", "!"]


@pytest.mark.parametrize("seed", [2**64, -(2**63) - 1])
def test_a_seed_of_more_than_64_bits_is_refused(run, seed):
    with pytest.raises(ValueError, match="seed must be a whole number of 64 bits"):
        run([5, 0], temperature=1.0, seed=seed)
