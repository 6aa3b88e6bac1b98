"""Text files that never hold half a row: append-only rows for one writer at a time, and atomic replacement."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

from qsit_plugin.errors import QSiTError

_FULL = (errno.ENOSPC, errno.EDQUOT) if hasattr(errno, "EDQUOT") else (errno.ENOSPC,)
_FAR = 2**31 - 2
"""Where Windows locks a byte: its locks are mandatory, and one among the rows would keep readers out."""


def is_full(error: OSError) -> bool:
    """Whether the disk, or the user's share of it, is full."""
    return error.errno in _FULL


def why(error: OSError) -> str:
    """``"the disk is full"``, or the system's own words."""
    return "the disk is full" if is_full(error) else (error.strerror or str(error))


class FileBusy(QSiTError, OSError):
    """Another process, or another part of this one, writes to the file."""

    def __init__(self, path: str | os.PathLike[str]):
        super().__init__(
            errno.EAGAIN, f"{path} is being written by another run: wait for its end, or name another file"
        )

    def __str__(self) -> str:
        return str(self.strerror)


class CutShort(QSiTError, OSError):
    """A row could not be written; those before it are whole on the disk. ``why``: ``"the disk is full"`` or so."""

    def __init__(self, path: str | os.PathLike[str], error: OSError):
        self.path = path
        self.why = why(error)
        super().__init__(error.errno, f"cannot go on writing {path}: {self.why}; the rows before are whole")

    def __str__(self) -> str:
        return str(self.strerror)


class RowFile(io.TextIOBase):
    """A text stream, UTF-8 with plain line feeds, whose ``flush`` puts what was written on the disk in one piece.

    What does not end with a line feed waits for the next flush, so a program that is killed leaves whole rows, and what
    a full disk cut off is taken away again. The file is locked until it is closed; the system drops the lock of a
    process that ends, however it ends. A pipe or a device (``/dev/stdout``) is neither locked nor cut.

    Args:
        append: go on behind the last whole row of what is there; else the file is emptied.

    Raises:
        FileBusy: another one is writing; the file is as it was.
        CutShort: from ``flush`` and ``close``.
        OSError: it cannot be opened.
    """

    def __init__(self, path: str | os.PathLike[str], *, append: bool = False):
        self.path = path
        self._pending, self._number = "", -1
        binary = getattr(os, "O_BINARY", 0)
        # A device may refuse to be read. Its own file is read as well, for the last whole row.
        self._number = os.open(path, (os.O_RDWR if append else os.O_WRONLY) | os.O_CREAT | binary, 0o666)
        try:
            self._regular = stat.S_ISREG(os.fstat(self._number).st_mode)
            if self._regular:
                _lock(self._number, path)
                os.ftruncate(self._number, _whole(self._number) if append else 0)
            self._end = os.lseek(self._number, 0, os.SEEK_END) if self._regular else 0
        except BaseException:
            self._release()
            raise

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        self._pending += text
        return len(text)

    def flush(self) -> None:
        if self.closed or not self._pending.endswith("\n"):
            return
        data = self._pending.encode("utf-8", errors="backslashreplace")
        self._pending = ""
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(self._number, rest) :]
        except BaseException as error:  # Ctrl-C too may come between two halves
            if self._regular:
                with contextlib.suppress(OSError):
                    os.ftruncate(self._number, self._end)
                    os.lseek(self._number, self._end, os.SEEK_SET)
            if isinstance(error, OSError) and error.errno != errno.EPIPE:
                raise CutShort(self.path, error) from error
            raise
        self._end += len(data)

    def close(self) -> None:
        if self.closed:
            return
        try:
            self.flush()
        finally:
            super().close()
            self._release()

    def _release(self) -> None:
        """Close the file, and with it the lock; once, for the number may be another file's a moment later."""
        number, self._number = self._number, -1
        if number >= 0:
            os.close(number)


def refuse_if_busy(path: str | os.PathLike[str]) -> None:
    """Raise FileBusy for a file that is being written, before the work whose result it shall take."""
    if Path(path).is_file():
        with locked(path):
            pass


@contextlib.contextmanager
def locked(path: str | os.PathLike[str]) -> Iterator[None]:
    """Keep other writers away from a file that is there, without changing it. Raises FileBusy."""
    number = os.open(path, os.O_WRONLY)
    try:
        _lock(number, path)
        yield
    finally:
        os.close(number)


def append_row(path: str | os.PathLike[str], row: str) -> None:
    """Append a row and a line feed; when this returns, it is on the disk. Raises as ``RowFile`` does."""
    with RowFile(path, append=True) as stream:
        stream.write(row + "\n")
        stream.flush()
        os.fsync(stream._number)


def read_rows(path: str | os.PathLike[str]) -> list[str]:
    """The whole rows of a file, without one that was cut off; none where there is no file.

    Not by ``splitlines``, which also cuts at U+2028 and its like, which names of images may hold.
    """
    content = Path(path).read_bytes() if Path(path).is_file() else b""
    return content.decode("utf-8", errors="replace").split("\n")[:-1]


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path beside ``path`` to write to, with the same ending; at the end of the block it takes that one's place, so a
    program that is killed, or a machine that loses its power, leaves the old file or the new one.

    Where the block raises, what was written is taken away. The path is of this process alone: two that write one file
    do not mix, and the last to end is the one that stays.
    """
    fresh = path.with_name(f"{path.stem}.{os.getpid()}.new{path.suffix}")
    try:
        yield fresh
        with fresh.open("rb+") as written:
            os.fsync(written.fileno())
        fresh.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            fresh.unlink()
        raise


def write_whole(path: Path, text: str) -> None:
    """Write a text file that is there whole or not at all: UTF-8 with plain line feeds."""
    with replacing(path) as fresh:
        fresh.write_text(text, encoding="utf-8", newline="\n")


def _whole(number: int) -> int:
    """Length of a file up to the end of its last whole line."""
    end = os.lseek(number, 0, os.SEEK_END)
    while end:
        start = max(0, end - 65536)
        os.lseek(number, start, os.SEEK_SET)
        at = os.read(number, end - start).rfind(b"\n")
        if at >= 0:
            return start + at + 1
        end = start
    return 0


if sys.platform == "win32":

    def _lock(number: int, path: str | os.PathLike[str]) -> None:
        import msvcrt

        os.lseek(number, _FAR, os.SEEK_SET)
        try:
            msvcrt.locking(number, msvcrt.LK_NBLCK, 1)
        except OSError as error:
            raise FileBusy(path) from error
        finally:
            os.lseek(number, 0, os.SEEK_SET)

else:

    def _lock(number: int, path: str | os.PathLike[str]) -> None:
        import fcntl

        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EWOULDBLOCK, errno.EACCES):
                raise FileBusy(path) from error
            import logging

            logging.getLogger("qsit_plugin").warning(
                "%s: its file system has no locks; write it from one process only", path
            )
