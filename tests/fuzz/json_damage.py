"""Damages of JSON files: each key in turn with a wrong value or without it, deep nesting, broken text.

Nothing here knows what a key means: the keys are read from the files themselves.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from .case import Damage

DEEP = 100_000
"""Levels of nesting that are beyond every recursive parser."""

_VALUES: dict[str, Any] = {
    "null": None,
    "true": True,
    "minus one": -1,
    "zero": 0,
    "a half": 0.5,
    "1e308": 1e308,
    "a thousand million": 10**9,
    "an integer of 400 digits": 10**400,
    "NaN": float("nan"),
    "infinity": float("inf"),
    "text": "text",
    "empty text": "",
    "a lone surrogate": "\ud800",
    "text of a million letters": "a" * 10**6,
    "an empty list": [],
    "a nested list": [[[]]],
    "a list of mixed values": [1, "two", None, {}],
    "a list of a million numbers": [1] * 10**6,
    "an empty object": {},
    "a nested object": {"a": {"b": [1]}},
}
_NUMBERS: dict[str, Callable[[Any], Any]] = {
    "one more": lambda x: x + 1,
    "the double": lambda x: x * 2,
    "the half": lambda x: x // 2 if isinstance(x, int) else x / 2,
    "a hundred thousand": lambda x: 10**5,
    "ten million": lambda x: 10**7,
    "1e-30": lambda x: 1e-30,
    "its negative": lambda x: -x,
    "as text": str,
}
"""Values of the right type that do not fit; only where a number stands."""

_TEXTS: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "binary": lambda _: bytes(range(256)) * 40,
    "a list": lambda text: b"[" + text + b"]",
    "text": lambda _: b'"text"',
    "a number": lambda _: b"1e400",
    "null": lambda _: b"null",
    "lists nested deep": lambda _: b"[" * DEEP + b"]" * DEEP,
    "objects nested deep": lambda _: b'{"a":' * DEEP + b"1" + b"}" * DEEP,
    "lists nested deep inside": lambda text: text.rstrip()[:-1] + b',"deep":' + b"[" * DEEP + b"]" * DEEP + b"}",
    "cut in the middle": lambda text: text[: len(text) // 2],
    "a byte-order mark": lambda text: b"\xef\xbb\xbf" + text,
    "UTF-16": lambda text: text.decode().encode("utf-16"),
    "Latin-1": lambda text: text.rstrip()[:-1] + b',"caf\xe9":1}',
    "an unknown key": lambda text: text.rstrip()[:-1] + b',"unknown key":[1,{"a":null}]}',
    "an integer of 10,000 digits": lambda text: text.rstrip()[:-1] + b',"long":' + b"9" * 10**4 + b"}",
}


def text_damages(documents: Mapping[str, Any]) -> list[Damage]:
    """``documents``: name of each file -> its parsed content. Damages that leave no readable object, or an odd one."""
    return [
        Damage(f"{name}: {kind}", partial(_write, name, document, change))
        for name, document in documents.items()
        for kind, change in _TEXTS.items()
    ]


def value_damages(documents: Mapping[str, Any]) -> list[Damage]:
    """Each key of each file, nested ones too, with each wrong value and each number that does not fit."""
    damages = []
    for name, document in documents.items():
        for path in key_paths(document):
            place = f"{name}: {'.'.join(map(str, path))}"
            found = at(document, path)
            changes: dict[str, Any] = {kind: (lambda _, value=value: value) for kind, value in _VALUES.items()}
            if isinstance(found, int | float) and not isinstance(found, bool):
                changes |= _NUMBERS
            damages += [
                Damage(f"{place} = {kind}", partial(_replace, name, document, path, change))
                for kind, change in changes.items()
            ]
    return damages


def deletions(documents: Mapping[str, Any]) -> list[Damage]:
    """Each key of each file left out."""
    return [
        Damage(f"{name}: {'.'.join(map(str, path))} left out", partial(_delete, name, document, path))
        for name, document in documents.items()
        for path in key_paths(document)
    ]


def key_paths(document: Any, before: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Paths of all keys; of a list, and of a large object such as a vocabulary, only the first and the last item."""
    if isinstance(document, dict):
        keys: list[str | int] = list(document)
        keys = keys if len(keys) <= 100 else [keys[0], keys[-1]]
    elif isinstance(document, list):
        keys = sorted({0, len(document) - 1}) if document else []
    else:
        return
    for key in keys:
        yield (*before, key)
        yield from key_paths(document[key], (*before, key))


def at(document: Any, path: tuple[str | int, ...]) -> Any:
    for key in path:
        document = document[key]
    return document


def with_value(document: Any, path: tuple[str | int, ...], value: Any) -> Any:
    """A copy of the document with another value at a path."""
    changed = copy.deepcopy(document)
    at(changed, path[:-1])[path[-1]] = value
    return changed


def write_json(path: Path, document: Any) -> None:
    path.write_text(json.dumps(document), encoding="utf-8")


def _write(name: str, document: Any, change: Callable[[bytes], bytes], folder: Path, _: Any) -> None:
    (folder / name).write_bytes(change(json.dumps(document).encode()))


def _replace(name: str, document: Any, path: Any, change: Callable[[Any], Any], folder: Path, _: Any) -> None:
    write_json(folder / name, with_value(document, path, change(at(document, path))))


def _delete(name: str, document: Any, path: Any, folder: Path, _: Any) -> None:
    changed = copy.deepcopy(document)
    del at(changed, path[:-1])[path[-1]]
    write_json(folder / name, changed)
