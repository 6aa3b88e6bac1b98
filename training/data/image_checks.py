"""Looks at the image files of rows once: whether they are there, their sizes, and on request whether they decode.

What was found is kept in a cache, a SQLite file for each folder of images, so that the other processes of a run, the
trials of a search and the next run do not open every file again. A file is known by name, size and time of its last
change; one that was replaced is looked at again. Faults are not kept.
"""

from __future__ import annotations

import hashlib
import logging
import sqlite3
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch.utils.data import DataLoader

from qsit_plugin.images.reading import ImageError, read_image
from qsit_plugin.weights.verified import cache_folder

from .checks import MISSING_IMAGE

UNREADABLE = "unreadable image"
CHUNK = 32
"""Images that a process looks at before it reports."""
REPORT_EVERY = 10.0
"""Seconds from one line on the progress to the next; the cache is written as often."""
WAIT = 10.0
"""Seconds that a process waits for another one that writes into the cache."""

log = logging.getLogger(__name__)
State = tuple[int, int]
"""Of a file: bytes, and time of the last change in ns."""
Size = tuple[int, int]
"""Of an image: width and height in pixels."""
Fault = tuple[str, str]
"""What is wrong with an image: its kind, and the message."""


def check_images(
    folder: Path,
    names: Iterable[str],
    *,
    verify: bool = False,
    workers: int = 0,
    say: Callable[[str], None] = log.warning,
) -> tuple[dict[str, Size], dict[str, Fault]]:
    """The sizes of the images that can be used, and what is wrong with the others, by name.

    Args:
        names: paths relative to ``folder``.
        verify: decode each image whole, where that was not done before; else only its head is read.
        workers: processes that look, where there are many images.
        say: takes lines on the progress, and one where the cache cannot be used.
    """
    cache = _Cache(folder, say)
    known, sizes, faults = cache.read(), dict[str, Size](), dict[str, Fault]()
    states: dict[str, State] = {}
    for name in names:
        try:
            stat = (folder / name).stat()
        except (FileNotFoundError, NotADirectoryError):
            faults[name] = (MISSING_IMAGE, f"{name} is not in {folder}")
        except (OSError, ValueError) as error:
            faults[name] = (UNREADABLE, f"{folder / name}: {error}")
        else:
            states[name] = (stat.st_size, stat.st_mtime_ns)
            state, size, verified = known.get(name, (None, None, False))
            if state == states[name] and size is not None and (verified or not verify):
                sizes[name] = size
    left = [name for name in states if name not in sizes]
    loader: DataLoader[Any] = DataLoader(
        left,  # type: ignore[arg-type]
        batch_size=CHUNK,
        collate_fn=partial(_look, folder, verify),
        num_workers=workers if len(left) > CHUNK * max(workers, 1) else 0,
        generator=torch.Generator(),  # else it draws from that of the run
    )
    begun, done, fresh = time.monotonic(), 0, list[str]()
    for found in loader:
        for name, outcome in found:
            if isinstance(outcome, str):
                faults[name] = (UNREADABLE, outcome)
            else:
                sizes[name] = outcome
                fresh.append(name)
        done += len(found)
        if time.monotonic() - begun > REPORT_EVERY or done == len(left):
            cache.write([(name, *states[name], *sizes[name], verify) for name in fresh])
            if done < len(left):
                say(f"images: {done:,} of {len(left):,} {'verified' if verify else 'looked at'}")
            begun, fresh = time.monotonic(), []
    return sizes, faults


def _look(folder: Path, verify: bool, names: Sequence[str]) -> list[tuple[str, Size | str]]:
    """The size of each image, or what is wrong with it."""
    found: list[tuple[str, Size | str]] = []
    for name in names:
        try:
            if verify:
                found.append((name, read_image(folder / name).size))
            else:
                with Image.open(folder / name) as picture:
                    found.append((name, picture.size))
        except ImageError as error:
            found.append((name, str(error)))
        except (OSError, ValueError, Image.DecompressionBombError) as error:
            found.append((name, f"{folder / name}: {error}"))
    return found


class _Cache:
    """Connections are short, so that processes do not wait for one another. Where the file cannot be used, everything
    works without it, and one line reports that."""

    def __init__(self, folder: Path, say: Callable[[str], None]):
        self.folder, self.say, self.usable = folder, say, True

    def read(self) -> dict[str, tuple[State, Size, bool]]:
        columns = "name, bytes, time_ns, width, height, verified"
        rows = self._do(lambda file: file.execute(f"SELECT {columns} FROM images").fetchall()) or []
        return {name: ((size, time_ns), (w, h), bool(verified)) for name, size, time_ns, w, h, verified in rows}

    def write(self, rows: Sequence[tuple[str, int, int, int, int, bool]]) -> None:
        if rows:
            self._do(lambda file: file.executemany("INSERT OR REPLACE INTO images VALUES (?, ?, ?, ?, ?, ?)", rows))

    def _do(self, work: Callable[[sqlite3.Connection], Any]) -> Any:
        if not self.usable:
            return None
        place: Path | str = "the cache"
        try:
            about = hashlib.sha256(str(self.folder.resolve()).encode("utf-8", "surrogateescape")).hexdigest()
            place = path = cache_folder() / "images" / f"{about[:32]}.sqlite"
            path.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(path, timeout=WAIT)) as file, file:
                file.execute(
                    "CREATE TABLE IF NOT EXISTS images (name TEXT PRIMARY KEY, bytes INTEGER, time_ns INTEGER, "
                    "width INTEGER, height INTEGER, verified INTEGER)"
                )
                return work(file)
        except (sqlite3.Error, OSError, RuntimeError, UnicodeError) as error:  # RuntimeError: no home folder
            self.usable = False
            self.say(
                f"what is known of the images cannot be kept in {place} ({error}), so they are all looked at: delete "
                "the file if it is damaged, or let QSIT_CACHE name a folder that can be written"
            )
            return None
