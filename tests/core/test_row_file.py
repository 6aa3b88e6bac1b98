"""Whole rows only, one writer at a time: with real locks, real limits and processes that are really killed."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from qsit_plugin.row_file import (
    CutShort,
    FileBusy,
    RowFile,
    append_row,
    read_rows,
    refuse_if_busy,
    replacing,
    write_whole,
)

ROOT = Path(__file__).resolve().parents[2]


def start(code: str, *arguments: object) -> subprocess.Popen:
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    command = [sys.executable, "-c", f"import sys\nfrom qsit_plugin.row_file import *\n{code}", *map(str, arguments)]
    pipe = subprocess.PIPE
    environment = {**os.environ, "PYTHONPATH": path}
    return subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, stderr=pipe, encoding="utf-8")


def test_a_row_is_on_the_disk_after_its_flush_and_what_is_no_whole_row_waits(tmp_path):
    path = tmp_path / "a.txt"
    with RowFile(path) as stream:
        stream.write("Übung ")
        stream.flush()
        assert path.read_bytes() == b""
        stream.write("€\n")
        stream.flush()
        assert path.read_bytes() == "Übung €\n".encode()


def test_rows_are_read_as_they_were_appended_and_a_torn_one_is_dropped(tmp_path):
    path = tmp_path / "a.jsonl"
    assert read_rows(path) == []
    append_row(path, '{"image": "a\u2028b"}')
    with path.open("a") as stream:
        stream.write("torn")
    assert read_rows(path) == ['{"image": "a\u2028b"}']
    append_row(path, "{}")
    assert read_rows(path) == ['{"image": "a\u2028b"}', "{}"]


def test_a_file_is_replaced_as_a_whole(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("old")
    with pytest.raises(UnicodeEncodeError):
        write_whole(path, "new \udc80")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.json"], "what was written of the new one is taken away"
    write_whole(path, "new\n")
    assert path.read_bytes() == b"new\n" and os.listdir(tmp_path) == ["a.json"]


def test_two_processes_that_replace_one_file_do_not_mix(tmp_path):
    path = tmp_path / "a.json"
    other = start(
        """from pathlib import Path
with replacing(Path(sys.argv[1])) as fresh:
    fresh.write_text("theirs")
    print("written", flush=True)
    input()""",
        path,
    )
    assert other.stdout.readline() == "written\n"
    with replacing(path) as fresh:
        fresh.write_text("ours")
    assert path.read_text() == "ours"
    assert other.communicate("\n")[1] == "" and path.read_text() == "theirs"
    assert os.listdir(tmp_path) == ["a.json"]


def test_a_file_is_emptied_or_continued_behind_its_last_whole_row(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("whole\n" + "torn" * 50_000, encoding="utf-8")
    with RowFile(path, append=True) as stream:
        stream.write("next\n")
    assert path.read_text(encoding="utf-8") == "whole\nnext\n"
    with RowFile(path) as stream:
        stream.write("new\n")
    assert path.read_text(encoding="utf-8") == "new\n"


@pytest.mark.parametrize("append", [False, True])
def test_a_second_writer_is_refused_with_the_cure_and_the_file_stays_as_it_was(tmp_path, append):
    path = tmp_path / "a.txt"
    with RowFile(path) as stream:
        stream.write("row\n")
        stream.flush()
        with pytest.raises(FileBusy, match="a.txt is being written by another run: wait for its end, or name another"):
            RowFile(path, append=append)
        with pytest.raises(FileBusy):
            refuse_if_busy(path)
        assert path.read_text(encoding="utf-8") == "row\n"
    refuse_if_busy(path)
    assert path.read_text(encoding="utf-8") == "row\n"


def test_the_lock_of_a_writer_in_another_process_holds_and_goes_when_it_is_killed(tmp_path):
    path = tmp_path / "a.txt"
    code = (
        "f = RowFile(sys.argv[1])\nf.write('row\\n'); f.flush(); f.write('torn')\nprint('ready', flush=True)\ninput()"
    )
    with start(code, path) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "ready\n"
        with pytest.raises(FileBusy):
            RowFile(path)
        other.kill()
        other.wait()
        with RowFile(path, append=True) as stream:
            stream.write("next\n")
    assert path.read_text(encoding="utf-8") == "row\nnext\n"


LIMITED = """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
f = RowFile(sys.argv[1])
try:
    for number in range(9):
        f.write(f"{number}" * 29 + "\\n")
        f.flush()
except CutShort as error:
    print(error, error.why, type(error.__cause__).__name__, sep="|")
f.close()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on the size of files")
def test_a_row_that_the_disk_cuts_off_is_taken_away_again_and_the_error_says_that_the_others_are_whole(tmp_path):
    out, err = start(LIMITED, tmp_path / "a.txt").communicate(timeout=60)
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == "".join(f"{n}" * 29 + "\n" for n in range(3)), err
    assert out.strip() == (
        f"cannot go on writing {tmp_path / 'a.txt'}: File too large; the rows before are whole|File too large|OSError"
    )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_called_so():
    stream = RowFile("/dev/full")
    stream.write("row\n")
    with pytest.raises(CutShort, match="the disk is full; the rows before are whole") as caught:
        stream.flush()
    assert caught.value.errno == errno.ENOSPC
    stream.close()  # what could not be written is not tried again


@pytest.mark.skipif(not Path("/dev/null").exists(), reason="needs devices")
def test_a_device_is_not_locked_since_others_write_to_it_too():
    with RowFile("/dev/null") as one, RowFile("/dev/null") as two:
        one.write("a\n")
        two.write("b\n")


def test_a_file_that_cannot_be_opened_raises_what_the_system_says(tmp_path):
    with pytest.raises(IsADirectoryError if sys.platform != "win32" else PermissionError):
        RowFile(tmp_path)
