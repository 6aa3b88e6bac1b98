"""Work on several items side by side, in threads that live no longer than the call.

An executor that outlived it would be lost in a fork, would refuse work once the program's main thread has ended, and
would wait for ever after a Ctrl-C that came while it held one of its locks.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

Jobs = SimpleQueue["tuple[int, Any] | None"]

WAIT = 0.5
"""Seconds after which who waits looks whether the others are still there."""

Done = tuple[int, Any, "BaseException | None"]
"""Number of an item, and its result or what was raised instead."""


def _worked(work: Callable[[Any], Any], number: int, item: Any, caught: type[BaseException] = Exception) -> Done:
    """What is ``caught`` is raised where the result is asked for."""
    try:
        return number, work(item), None
    except caught as error:
        return number, None, error


def _take_jobs(crew: weakref.ref[_Crew], work: Callable[[Any], Any], jobs: Jobs, done: SimpleQueue[Done]) -> None:
    """What a thread does, until it is sent home, or whoever would ask for results is gone."""
    while True:
        try:
            job = jobs.get(timeout=WAIT)
        except Empty:
            if crew() is None or not threading.main_thread().is_alive():  # a program that ends waits for this thread
                return
            continue
        if job is None:
            return
        done.put(_worked(work, *job, BaseException))


class _Crew:
    """Threads that take jobs and put down what came of them."""

    def __init__(self, work: Callable[[Any], Any], threads: int):
        self.work, self.threads = work, list[threading.Thread]()
        self.jobs: Jobs = SimpleQueue()
        self.done: SimpleQueue[Done] = SimpleQueue()
        given = (weakref.ref(self), work, self.jobs, self.done)
        for _ in range(threads):
            thread = threading.Thread(target=_take_jobs, args=given, name="qsit-images")
            try:
                thread.start()
            except RuntimeError:  # the interpreter ends, or the system has no thread left: who asks works alone
                break
            self.threads.append(thread)

    def next_result(self, helping: bool) -> Done | None:
        """One more result; with ``helping`` by own work where none is there. None: no thread is left to wait for."""
        while True:
            alive = any(thread.is_alive() for thread in self.threads)
            try:
                return self.done.get_nowait()
            except Empty:
                pass
            if helping or not alive:
                try:
                    job = self.jobs.get_nowait()
                except Empty:
                    if not alive:
                        return None
                else:
                    if job is not None:
                        return _worked(self.work, *job)
            try:
                return self.done.get(timeout=WAIT)
            except Empty:
                continue

    def dismiss(self) -> None:
        """What nobody has begun is left undone; the threads end."""
        try:
            while True:
                self.jobs.get_nowait()
        except Empty:
            for _ in self.threads:
                self.jobs.put(None)


def in_order(
    work: Callable[[Item], Result], items: Iterable[Item], *, threads: int, ahead: int, helping: bool
) -> Iterator[Result]:
    """``work`` on each item, in their order: each result as soon as it and those before it are there.

    Args:
        items: taken one by one in the caller's thread, at most ``ahead`` of them before the first result is asked for.
        threads: beside the caller's.
        helping: the caller's thread works too while it waits.

    Raises what ``work`` raises in the place of its result, and what the iterable raises after the results before it.
    """
    crew, source = _Crew(work, threads), iter(items)
    flying: dict[int, Item] = {}
    found: dict[int, tuple[Any, BaseException | None]] = {}
    taken = given = 0
    ended: Exception | None = None
    failure: BaseException | None = None
    one: Done | None = None
    more = True
    try:
        while True:
            while more and taken - given < ahead:
                try:
                    flying[taken] = next(source)
                except StopIteration:
                    more = False
                except Exception as error:  # raised below, when it is its turn
                    more, ended = False, error
                else:
                    crew.jobs.put((taken, flying[taken]))
                    taken += 1
            if given == taken:
                break
            while given not in found:
                one = crew.next_result(helping)
                if one is None:  # in a fork, which has not inherited the thread that worked on it
                    one = _worked(work, given, flying[given])
                flying.pop(one[0])
                found[one[0]] = one[1:]
            result, failure = found.pop(given)
            given += 1
            if failure is not None:
                raise failure
            yield result
        if ended is not None:
            raise ended
    finally:
        failure = one = None  # whose traceback holds this frame
        crew.dismiss()
