"""Score what a store does not know yet: look up, read and hash ahead, score, record."""

from __future__ import annotations

import hashlib
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from qsit_plugin.images.errors import ImageError
from qsit_plugin.images.reading import Content
from qsit_plugin.parallel import in_order

from .inputs.source import Source
from .store import Store

Item = TypeVar("Item")

READERS, AHEAD = 4, 8
"""Threads that read and hash, and files that they are ahead of the model."""

SETTLED = 2_000_000_000
"""Nanoseconds. A file changed so shortly before it was read may change once more within one tick of its clock (2 s on
FAT), with the same size and time; its time is not stored, and the next run looks at its content."""


class Records(Protocol):
    """What gives records: ``Scorer``."""

    def iter_records(self, images: Iterable[Any]) -> Iterator[dict[str, Any]]: ...


@dataclass
class Counts:
    """Images by what became of them: ``known`` had a score, or share their content with one that is scored."""

    scored: int = 0
    known: int = 0
    failed: int = 0

    @property
    def done(self) -> int:
        return self.scored + self.known + self.failed


def score_into(
    store: Store,
    scorer: Records,
    found: Iterable[Source | ImageError],
    *,
    verify: bool = False,
    on_image: Callable[[Counts, str, str | None], None] = lambda counts, path, error: None,
) -> Counts:
    """Give every image its row in the store; only contents without a score go through the model.

    Memory does not grow with the number of images. What cannot be read or scored is a row with its error.

    Args:
        verify: hash every file, also where size and time of change are the stored ones.
        on_image: called after each image with the counts so far, its path, and the error of one that failed.

    Raises:
        StoreError: what was recorded before is whole. Else what ``Scorer`` raises.
    """
    run = _Run(store, verify, on_image)
    try:
        for record in scorer.iter_records(run.unscored(found)):
            run.take(record)
    finally:
        store.flush()
    return run.counts


class _Run:
    def __init__(self, store: Store, verify: bool, on_image: Callable[[Counts, str, str | None], None]):
        self.store, self.verify, self.on_image = store, verify, on_image
        self.counts = Counts()
        self.waiting: deque[tuple[str, bytes]] = deque()
        self.in_flight: set[bytes] = set()

    def unscored(self, found: Iterable[Source | ImageError]) -> Iterator[Content]:
        """The contents that have no score yet, each once."""
        for source, outcome in read_ahead(_read, self._changed(found)):
            if isinstance(outcome, ImageError):
                error = f"{type(outcome).__name__}: {outcome.reason}"
                self.store.put_image(source.path, None, None, None, error)
                self._failed(source.path, outcome.reason)
                continue
            content, sha256, settled = outcome
            self.store.put_image(source.path, source.size, source.mtime_ns if settled else None, sha256)
            if sha256 in self.in_flight or self.store.has(sha256):
                self.counts.known += 1
                self.on_image(self.counts, source.path, None)
                continue
            self.in_flight.add(sha256)
            self.waiting.append((source.path, sha256))
            yield Content(content, source.path)

    def _changed(self, found: Iterable[Source | ImageError]) -> Iterator[Source]:
        for source in found:
            if isinstance(source, ImageError):
                self._failed(source.source, source.reason)
            elif not self.verify and self.store.is_done(source.path, source.size, source.mtime_ns):
                self.counts.known += 1
                self.on_image(self.counts, source.path, None)
            else:
                yield source

    def take(self, record: dict[str, Any]) -> None:
        """The record of the content that was given out first of those that wait."""
        path, sha256 = self.waiting.popleft()
        self.store.put_result(sha256, record)
        self.in_flight.discard(sha256)
        if "error" in record:
            self._failed(path, record["error"]["message"])
        else:
            self.counts.scored += 1
            self.on_image(self.counts, path, None)

    def _failed(self, path: str, reason: str) -> None:
        self.counts.failed += 1
        self.on_image(self.counts, path, reason)


def _read(source: Source) -> tuple[bytes, bytes, bool] | ImageError:
    """Content, its SHA-256, and whether the file's time of change will tell the next change."""
    try:
        now = time.time_ns()
        content = source.read()
    except ImageError as error:
        return error
    settled = source.mtime_ns is not None and source.mtime_ns < now - SETTLED and source.size in (None, len(content))
    return content, hashlib.sha256(content).digest(), settled


def read_ahead(work: Callable[[Item], Any], items: Iterable[Item]) -> Iterator[tuple[Item, Any]]:
    """``work`` on the items in threads, a few ahead; in order."""
    return in_order(lambda item: (item, work(item)), items, threads=READERS, ahead=AHEAD + 1, helping=False)
