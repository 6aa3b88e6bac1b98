"""The one way in for JSON files: limits of size, depth and numbers, and an error that names the file."""

import json
import os

import pytest

from qsit_plugin.weights import WeightsError
from qsit_plugin.weights.json_file import DEEPEST, LARGEST, MOST_BRACKETS, check_json_files, read_json


def nested(depth):
    return '{"a": ' * depth + "1" + "}" * depth


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "Expecting value"),
        (b"\xff\xfe", "utf-8"),
        (b'{"a": NaN}', "NaN is not a finite number"),
        (b'{"a": -Infinity}', "-Infinity is not"),
        (b'{"a": 1e999}', "1e999 is not"),
        (b'{"a": ' + b"9" * 5000 + b"}", "4300"),
        (nested(DEEPEST + 1).encode(), "nested deeper than 64 levels"),
        (nested(100_000).encode(), "nested deeper than 64 levels"),
        (json.dumps([[]] * MOST_BRACKETS).encode(), "more than 100,000 objects"),
        (b" " * (LARGEST + 1), "16,777,217 bytes"),
    ],
    ids=range(10),
)
def test_what_cannot_be_read_is_an_error_with_file_cause_and_cure(tmp_path, content, message):
    path = tmp_path / "config.json"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=f"config.json cannot be read: .*{message}.*again") as caught:
        read_json(path)
    assert caught.value.__cause__ is not None


def test_depth_and_size_up_to_the_limits_are_read(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(nested(DEEPEST), encoding="utf-8")
    assert list(read_json(path)) == ["a"]
    path.write_text('{"a": "' + "[{" * 20_000 + '"}', encoding="utf-8")
    assert len(read_json(path)["a"]) == 40_000


def test_a_vocabulary_may_be_larger(tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps({"merges": [["a", "b"]] * 150_000}), encoding="utf-8")
    assert len(read_json(path)["merges"]) == 150_000


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
@pytest.mark.parametrize("name", ["generation_config.json", "tokenizer_config.json", "merges.txt", "qsit.json"])
def test_a_named_pipe_in_a_folder_is_refused_and_never_opened(tmp_path, name):
    os.mkfifo(tmp_path / name)
    with pytest.raises(WeightsError, match=f"{name} is no regular file, but a pipe"):
        check_json_files(tmp_path)
    with pytest.raises(WeightsError, match="is no regular file, but a pipe"):
        read_json(tmp_path / name)
