"""Reads the JSON files of a checkpoint folder: limits of size and depth, then an object or a WeightsError.

transformers and tokenizers open the same files again, by recursion and without limits. So each is read here first.
"""

from __future__ import annotations

import json
import math
import stat
from pathlib import Path
from typing import Any

from qsit_plugin.weights.errors import WeightsError, first_line

LARGEST = 16 * 2**20
"""Bytes of a JSON file; configs have a few kilobytes."""

LARGEST_VOCABULARY = 64 * 2**20
"""Bytes of a vocabulary: Qwen2's tokenizer.json has 11 MB."""

VOCABULARIES = ("tokenizer.json", "vocab.json")

DEEPEST = 64
"""Brackets inside each other. Published files have seven; transformers copies them by recursion."""

MOST_BRACKETS = 100_000
MOST_VOCABULARY_BRACKETS = 4_000_000
"""Objects and lists of a file: each takes a hundred bytes once parsed. Qwen2's tokenizer.json has 151 thousand, its
configs have some forty."""

READ_BY_TRANSFORMERS = (
    "config.json",
    "generation_config.json",
    "model.safetensors.index.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "preprocessor_config.json",
    "video_preprocessor_config.json",
    "processor_config.json",
    "chat_template.json",
    "adapter_config.json",
)
"""What transformers and peft open by themselves, in a checkpoint or in an adapter."""


NO_FILE = "is no regular file, but a pipe, a socket or a device"


def check_json_files(folder: Path) -> None:
    """Raise WeightsError for a file of ``READ_BY_TRANSFORMERS`` that is there and cannot be read, and for anything
    in the folder that is neither file nor folder: to open a named pipe would wait for ever."""
    for path in folder.iterdir():
        if path.exists() and not path.is_file() and not path.is_dir():
            raise WeightsError(f"{path} {NO_FILE}; copy or download the checkpoint again")
    for name in READ_BY_TRANSFORMERS:
        if (folder / name).is_file():
            read_json(folder / name)


def read_json(path: Path, *, finite: bool = True) -> dict[str, Any]:
    """The object in a JSON file: at most ``LARGEST`` bytes, ``DEEPEST`` deep, its numbers finite.

    ``finite=False`` leaves NaN and Infinity to a reader that names the key. Raises WeightsError where there is no such
    object; it names the file, what is wrong, and the cure.
    """
    try:
        most = MOST_VOCABULARY_BRACKETS if path.name in VOCABULARIES else MOST_BRACKETS
        content = parse_json(_text(path), finite=finite, most=most)
    except (OSError, ValueError, RecursionError) as error:  # UnicodeDecodeError and JSONDecodeError are ValueErrors
        raise WeightsError(
            f"{path} cannot be read: {first_line(error)}; download or copy the checkpoint again"
        ) from error
    if not isinstance(content, dict):
        raise WeightsError(f"{path} holds {type(content).__name__}, not an object; download the checkpoint again")
    return content


def parse_json(text: str, *, finite: bool = True, most: int = MOST_BRACKETS) -> Any:
    """The value of a JSON text. Raises ValueError for what is no JSON, is nested too deep, or is no finite number."""
    if text.count("[") + text.count("{") > most:
        raise ValueError(f"more than {most:,} objects and lists")
    try:
        content = json.loads(text, parse_constant=_refuse, parse_float=_finite) if finite else json.loads(text)
    except RecursionError as error:
        raise ValueError(f"nested deeper than {DEEPEST} levels") from error
    level = [content]
    for _ in range(DEEPEST):
        level = [inner for outer in level for inner in _values(outer) if isinstance(inner, (dict, list))]
        if not level:
            return content
    raise ValueError(f"nested deeper than {DEEPEST} levels")


def is_file_name(name: Any) -> bool:
    """Whether it names a file beside the one that says so: not elsewhere, and nothing that the system refuses to look
    for, such as a longer name or one with a null character."""
    return isinstance(name, str) and Path(name).name == name and len(name) <= 200 and name.isprintable()


def _text(path: Path) -> str:
    about = path.stat()
    if not stat.S_ISREG(about.st_mode) and not stat.S_ISDIR(about.st_mode):  # opening a folder raises its error below
        raise ValueError(f"it {NO_FILE}")
    size, largest = about.st_size, LARGEST_VOCABULARY if path.name in VOCABULARIES else LARGEST
    if size > largest:
        raise ValueError(f"{size:,} bytes, where a {path.name} has at most {largest:,}")
    return path.read_text(encoding="utf-8")


def _values(value: Any) -> Any:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def _finite(text: str) -> float:
    number = float(text)
    return number if math.isfinite(number) else _refuse(text)


def _refuse(text: str) -> float:
    raise ValueError(f"{text} is not a finite number")
