"""Work side by side: order, errors, what is taken ahead, and threads that end with the call."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from qsit_plugin.parallel import _Crew, in_order


def test_results_come_in_order_whatever_takes_longest():
    def work(number: int) -> int:
        time.sleep(0.02 if number % 3 == 0 else 0)
        return -number

    for helping in (True, False):
        found = in_order(work, range(20), threads=3, ahead=5, helping=helping)
        assert list(found) == [-number for number in range(20)]


def test_each_item_is_worked_on_once_and_several_at_the_same_time():
    together, seen = threading.Barrier(3, timeout=30), []

    def work(number: int) -> int:
        seen.append(number)
        together.wait()  # passes only when three are here
        return number

    assert list(in_order(work, range(9), threads=2, ahead=9, helping=True)) == list(range(9))
    assert sorted(seen) == list(range(9))


def test_no_more_items_are_taken_than_were_allowed_ahead():
    taken = []

    def items() -> Iterator[int]:
        for number in range(20):
            taken.append(number)
            yield number

    results = in_order(lambda number: number, items(), threads=2, ahead=4, helping=True)
    next(results)
    assert len(taken) == 4
    results.close()
    assert len(taken) == 4


def test_an_error_is_raised_in_its_place():
    def work(number: int) -> float:
        return 1 / (number - 3)

    results = in_order(work, range(6), threads=2, ahead=6, helping=True)
    assert [next(results) for _ in range(3)] == [work(0), work(1), work(2)]
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_a_ctrl_c_that_meets_the_caller_at_work_is_raised_at_once():
    caller, seen = threading.current_thread(), []

    def work(number: int) -> int:
        seen.append(number)
        if threading.current_thread() is caller:
            raise KeyboardInterrupt
        time.sleep(0.1)
        return number

    with pytest.raises(KeyboardInterrupt):
        list(in_order(work, range(1000), threads=1, ahead=1000, helping=True))
    assert len(seen) < 100


def test_an_iterator_that_fails_loses_no_result_before():
    def items() -> Iterator[int]:
        yield from range(5)
        raise OSError("the camera is gone")

    results = in_order(lambda number: number, items(), threads=2, ahead=4, helping=True)
    assert [next(results) for _ in range(5)] == list(range(5))
    with pytest.raises(OSError, match="camera"):
        next(results)


def test_no_thread_outlives_the_call():
    before = set(threading.enumerate())
    list(in_order(lambda number: number, range(8), threads=3, ahead=8, helping=True))
    half = in_order(lambda number: number, range(8), threads=3, ahead=8, helping=False)
    next(half)
    half.close()
    left = set(threading.enumerate()) - before
    for thread in left:
        thread.join(30)
    assert not any(thread.is_alive() for thread in left)


def test_threads_end_where_the_call_was_interrupted_before_it_could_send_them_home():
    before = set(threading.enumerate())
    crew = _Crew(lambda number: number, 3)
    threads = crew.threads
    assert len(threads) == 3
    del crew
    for thread in threads:
        thread.join(30)
    assert set(threading.enumerate()) <= before


def said_by(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.stderr == "" and done.returncode == 0
    return done.stdout.strip()


BEGINNING = "from qsit_plugin.parallel import in_order\nimport atexit, os, threading, time\n"


def test_work_goes_on_when_the_main_thread_has_ended_and_at_exit():
    code = """
def squares():
    time.sleep(.2)  # the main thread has ended
    print(*in_order(lambda n: n * n, range(4), threads=2, ahead=4, helping=False))
atexit.register(lambda: print(*in_order(lambda n: n * n, range(4), threads=2, ahead=4, helping=True)))
threading.Thread(target=squares).start()
"""
    assert said_by(BEGINNING + code).splitlines() == ["0 1 4 9", "0 1 4 9"]


def test_a_program_ends_though_results_were_left_over():
    assert (
        said_by(BEGINNING + "left = in_order(str, range(9), threads=2, ahead=4, helping=False); print(next(left))")
        == "0"
    )


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_fork_goes_on_with_what_its_parent_began():
    code = """
results = in_order(lambda n: time.sleep(.05) or n, range(9), threads=2, ahead=6, helping=False)
print(next(results), flush=True)
if os.fork() == 0:
    print(*results, flush=True)
    os._exit(0)
os.wait()
"""
    assert said_by(BEGINNING + code).splitlines() == ["0", "1 2 3 4 5 6 7 8"]
