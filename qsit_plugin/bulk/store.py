"""The store: one SQLite file of which image lies under which path, and what each content scored under each recipe.

Rows are gathered and written in short transactions, so that several processes may write to one store, and a process
that is killed loses at most the last second of its work, which the next run does again.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from qsit_plugin.errors import QSiTError
from qsit_plugin.protocol import LEVELS

APPLICATION, VERSION = 0x51536954, 1
"""Of the file's header: "QSiT", and the version of its tables."""

GATHERED, SECONDS = 500, 1.0
"""So many rows, or rows of so much time, are written at once."""

PATIENCE = 120.0
"""Seconds to wait for another process that writes."""

NUMBERS = ("score", *LEVELS, "std", "level_mass")
VALUES = (*NUMBERS, "level", "width", "height", "dtype", "engine", "mode")
"""What a result holds of a record; what else a row has is the recipe's."""
OF_RECIPE = ("model", "fingerprint", "engine", "dtype", "profile", "mode", "scope", "scope_kind")

_TABLES = f"""
CREATE TABLE recipe (id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, {" TEXT, ".join(OF_RECIPE)} TEXT);
CREATE TABLE image (path PRIMARY KEY, size INTEGER, mtime_ns INTEGER, sha256 BLOB, error TEXT) WITHOUT ROWID;
CREATE TABLE result (sha256 BLOB NOT NULL, recipe INTEGER NOT NULL REFERENCES recipe, {" REAL, ".join(NUMBERS)} REAL,
    level TEXT, width INTEGER, height INTEGER, dtype TEXT, engine TEXT, mode TEXT, error TEXT, run INTEGER,
    PRIMARY KEY (sha256, recipe)) WITHOUT ROWID;
"""
_IMAGE = """INSERT INTO image VALUES (?, ?, ?, ?, ?) ON CONFLICT (path) DO UPDATE SET
    size = excluded.size, mtime_ns = excluded.mtime_ns, sha256 = excluded.sha256, error = excluded.error"""
_COLUMNS = ("sha256", "recipe", *VALUES, "error", "run")
_RESULT = f"""INSERT INTO result ({", ".join(_COLUMNS)}) VALUES ({", ".join("?" * len(_COLUMNS))})
    ON CONFLICT (sha256, recipe) DO UPDATE SET {", ".join(f"{name} = excluded.{name}" for name in _COLUMNS[2:])}
    WHERE result.error IS NOT NULL"""


class StoreError(QSiTError, OSError):
    """A store that cannot be opened, read or written; what was committed before is whole."""


def stored_path(path: str) -> str | bytes:
    """A path as the store holds it: text, or bytes where it is no UTF-8."""
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:
        return os.fsencode(path)
    return path


@contextmanager
def in_words(path: str) -> Iterator[None]:
    """StoreError, with the cure, for an error of SQLite's."""
    try:
        yield
    except sqlite3.Error as error:
        cure = "name another"
        if "full" in str(error):
            cure = "free some space and run again; what was written is whole"
        if "I/O" in str(error):  # SQLite's words for a quota, a limit on files, and a disk that fails
            cure = "free some space, or look after the disk, and run again; what was written is whole"
        if "locked" in str(error):
            cure = f"another process has been writing for {PATIENCE:.0f} s: wait for its end"
        if isinstance(error, sqlite3.DatabaseError) and "not a database" in str(error):
            cure = "it is no store of qsit score: name another file"
        if "readonly" in str(error) or "unable to open" in str(error):
            cure = "file and folder must be there and writable (SQLite keeps files beside it), or name another"
        raise StoreError(f"{path}: {error}; {cure}") from error


class Store:
    """A store opened for one recipe (see ``recipe.recipe``), made where it is not there.

    To be used by one thread, as a context manager. Raises StoreError, also from its methods.
    """

    def __init__(self, path: str | os.PathLike[str], recipe: Mapping[str, Any]):
        self.path = os.fspath(path)
        self.run = int.from_bytes(os.urandom(7), "little")
        self._images: dict[str | bytes, tuple[Any, ...]] = {}
        self._results: dict[bytes, tuple[Any, ...]] = {}
        self._written = time.monotonic()
        with in_words(self.path):
            self._file = sqlite3.connect(self.path, timeout=PATIENCE, isolation_level=None)
            try:
                self._prepare()
                self.recipe = self._recipe(recipe)
            except BaseException:
                self._file.close()
                raise

    def _prepare(self) -> None:
        with self._writing():
            if not self._file.execute("SELECT 1 FROM sqlite_master").fetchone():
                for statement in _TABLES.split(";"):
                    self._file.execute(statement)
                self._file.execute(f"PRAGMA application_id = {APPLICATION}")
                self._file.execute(f"PRAGMA user_version = {VERSION}")
        check_store(self._file, self.path)
        self._log_ahead()
        self._file.execute("PRAGMA synchronous = NORMAL")  # a kill loses nothing, a power failure the last rows only

    def _log_ahead(self) -> None:
        """Switch to the write-ahead log. SQLite does not wait for that while another process opens the file."""
        end = time.monotonic() + PATIENCE
        while self._file.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
            try:
                self._file.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > end:
                    raise
                time.sleep(0.05)

    def _recipe(self, recipe: Mapping[str, Any]) -> int:
        names = ("key", *OF_RECIPE)
        with self._writing():
            places = ", ".join("?" * len(names))
            self._file.execute(
                f"INSERT OR IGNORE INTO recipe ({', '.join(names)}) VALUES ({places})", [recipe[name] for name in names]
            )
            return self._file.execute("SELECT id FROM recipe WHERE key = ?", (recipe["key"],)).fetchone()[0]

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """One transaction that has the right to write from its beginning on, so that it cannot fail half-way."""
        self._file.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._file.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):  # a full disk has rolled back already
                self._file.execute("ROLLBACK")
            raise

    def is_done(self, path: str, size: int | None, mtime_ns: int | None) -> bool:
        """Whether the file under this path is as it was, by size and time of change, and its content has a score."""
        key = stored_path(path)
        row = self._images.get(key)
        if row is None:
            with in_words(self.path):
                row = self._file.execute("SELECT * FROM image WHERE path = ?", (key,)).fetchone()
        if row is None or mtime_ns is None or row[1:3] != (size, mtime_ns) or row[3] is None:
            return False
        return self.has(row[3])

    def has(self, sha256: bytes) -> bool:
        """Whether a content has its result: a score, or an error of this very run. Errors of earlier runs are tried
        again, as a missing package may be there by now."""
        if sha256 in self._results:
            return True
        with in_words(self.path):
            found = self._file.execute(
                "SELECT error IS NULL OR run = ? FROM result WHERE sha256 = ? AND recipe = ?",
                (self.run, sha256, self.recipe),
            ).fetchone()
        return found is not None and bool(found[0])

    def put_image(
        self, path: str, size: int | None, mtime_ns: int | None, sha256: bytes | None, error: str | None = None
    ) -> None:
        """Under this path lies this content, or, with an error, nothing that can be read.

        ``mtime_ns`` None: the time of change says nothing, so that the next run looks at the content.
        """
        key = stored_path(path)
        self._images[key] = (key, size, mtime_ns, sha256, error)
        self._flush_in_time()

    def put_result(self, sha256: bytes, record: Mapping[str, Any]) -> None:
        """A record of ``Scorer`` for a content. One that has a score already keeps it."""
        flat = {**record, **record.get("probabilities", {})}
        error = f"{record['error']['type']}: {record['error']['message']}" if "error" in record else None
        values = [flat.get(name) for name in VALUES]
        self._results[sha256] = (sha256, self.recipe, *values, error, self.run)
        self._flush_in_time()

    def _flush_in_time(self) -> None:
        if len(self._images) + len(self._results) >= GATHERED or time.monotonic() - self._written >= SECONDS:
            self.flush()

    def flush(self) -> None:
        """Commit what was put; when this returns, a kill of the process loses nothing."""
        if self._images or self._results:
            if not os.path.exists(self.path):  # SQLite would go on in a file that nobody can find
                raise StoreError(f"{self.path}: the file is gone, moved or removed while it was written; run again")
            with in_words(self.path), self._writing():
                self._file.executemany(_IMAGE, self._images.values())
                self._file.executemany(_RESULT, self._results.values())
            self._images.clear()
            self._results.clear()
        self._written = time.monotonic()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.flush()
        finally:
            self._file.close()


def check_store(file: sqlite3.Connection, path: str) -> None:
    """Raise StoreError for a file of another program, or of a later version of this one."""
    application, version = (file.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version"))
    if application != APPLICATION:
        raise StoreError(f"{path}: a SQLite file of another program, not a store of qsit score; name another file")
    if version != VERSION:
        raise StoreError(f"{path}: a store of version {version}, this is for {VERSION}; update qsit-plugin")


def open_to_read(path: str | os.PathLike[str]) -> sqlite3.Connection:
    """A store that is only read, also from a folder that may not be written. Raises StoreError."""
    if not os.path.isfile(path):
        raise StoreError(f"{os.fspath(path)}: no such file; qsit score DIR --out FILE.sqlite makes one")
    address = Path(path).resolve().as_uri()
    with in_words(os.fspath(path)):
        file = sqlite3.connect(f"{address}?mode=ro", uri=True, timeout=PATIENCE)
        try:
            file.execute("SELECT 1 FROM sqlite_master").fetchone()
        except sqlite3.OperationalError:
            file.close()
            if os.path.exists(f"{os.fspath(path)}-wal"):
                raise
            # Nobody writes, and SQLite may not make the files that it keeps beside a store.
            file = sqlite3.connect(f"{address}?mode=ro&immutable=1", uri=True)
        check_store(file, os.fspath(path))
    return file
