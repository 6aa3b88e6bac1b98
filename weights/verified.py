"""Which folders have passed their golden check on this machine: one empty file each in the user's cache.

A folder is known by its place and by name, size and time of all its files, so any change asks for the check again. A
cache that cannot be written is no error: the check then runs at every load.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
from pathlib import Path


def cache_folder() -> Path:
    """``QSIT_CACHE`` where it is set, else the platform's place for what a program may lose."""
    if os.environ.get("QSIT_CACHE"):
        return Path(os.environ["QSIT_CACHE"])
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "qsit" / "cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "qsit"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "qsit"


def state(folder: Path) -> str:
    """A name for the folder and its files as they are now: 64 hexadecimal digits. Raises OSError."""
    files = [(path.name, path.stat()) for path in sorted(folder.iterdir()) if path.is_file()]
    about = [str(folder.resolve()), [(name, stat.st_size, stat.st_mtime_ns) for name, stat in files]]
    return hashlib.sha256(json.dumps(about).encode("utf-8", "surrogateescape")).hexdigest()


def is_verified(known: str) -> bool:
    """Whether ``remember`` was called with this state."""
    with contextlib.suppress(OSError, RuntimeError):  # no home folder: RuntimeError
        return (cache_folder() / "verified" / known).is_file()
    return False


def remember(known: str) -> None:
    """Write the state down, where the cache can be written."""
    with contextlib.suppress(OSError, RuntimeError):
        place = cache_folder() / "verified"
        place.mkdir(parents=True, exist_ok=True)
        (place / known).touch()
