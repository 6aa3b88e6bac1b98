"""Reading the JSON that benchmarks publish: one array, one object a line, or objects one after the other."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


def read_records(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """All objects of a JSON file, in order.

    Q-Bench's logit files are objects without anything between them, which ``json.load`` refuses. Raises ValueError,
    with the place, for text that is no JSON, for anything but objects, for an empty file, and for a folder.
    """
    if Path(path).is_dir():
        raise ValueError(f"{path} is a folder: give the JSON file in it")
    try:
        text = Path(path).read_text(encoding="utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not a text file in UTF-8: {error}") from None
    decoder, place = json.JSONDecoder(), 0
    records: list[Any] = []
    while place < len(text):
        try:
            value, place = decoder.raw_decode(text, place)
        except json.JSONDecodeError as error:
            raise ValueError(
                f"{path} is not valid JSON after {len(records)} objects: {error.msg} at character {error.pos}"
            ) from None
        except RecursionError:
            raise ValueError(f"{path}: object {len(records)} is nested too deeply") from None
        records += value if isinstance(value, list) else [value]
        while place < len(text) and text[place].isspace():
            place += 1
    for number, record in enumerate(records):
        if not isinstance(record, dict):
            raise ValueError(f"{path}: entry {number} is {record!r:.60}, it must be a JSON object")
    if not records:
        raise ValueError(f"{path} holds no JSON objects")
    return records
