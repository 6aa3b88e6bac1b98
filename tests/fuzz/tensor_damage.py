"""Damages of a safetensors file: values, dtypes and shapes of each group of tensors, and its header."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from .case import Damage

Change = Callable[[torch.Tensor, random.Random], torch.Tensor | None]


def _one(value: float) -> Change:
    """One value of the tensor, where the case says."""

    def change(tensor: torch.Tensor, rng: random.Random) -> torch.Tensor:
        changed = tensor.clone().flatten()
        changed[rng.randrange(len(changed))] = value
        return changed.view(tensor.shape)

    return change


_CHANGES: dict[str, Change] = {
    "one NaN": _one(float("nan")),
    "one infinity": _one(float("-inf")),
    "one 3e38": _one(3e38),
    "all NaN": lambda t, _: torch.full_like(t, float("nan")),
    "all infinite": lambda t, _: torch.full_like(t, float("inf")),
    "all 1e38": lambda t, _: torch.full_like(t, 1e38),
    "all zero": lambda t, _: torch.zeros_like(t),
    "times 1e30": lambda t, _: t * 1e30,
    "as int32": lambda t, _: (t * 1000).to(torch.int32),
    "as bool": lambda t, _: t > 0,
    "as int8": lambda t, _: (t * 100).to(torch.int8),
    "as float64": lambda t, _: t.double(),
    "as float16": lambda t, _: t.half(),
    "as float8": lambda t, _: t.to(torch.float8_e4m3fn),
    "one row more": lambda t, _: torch.cat([t, t[:1]]),
    "one row less": lambda t, _: t[:-1].clone(),
    "empty": lambda t, _: t[:0].clone(),
    "without shape": lambda t, _: t.flatten()[0].clone(),
    "one axis more": lambda t, _: t[None].clone(),
    "absent": lambda t, _: None,
}


def tensor_damages(file: str, groups: Mapping[str, list[str]]) -> list[Damage]:
    """Each group (name -> tensors) with each change: in one tensor of it, and in all of them."""
    damages = [Damage(f"{file}: a tensor too many", partial(_extra, file))]
    for group, names in groups.items():
        for kind, change in _CHANGES.items():
            for one in (True, False):
                label = f"{file}: {group}, {'one tensor' if one else 'all tensors'} {kind}"
                damages.append(Damage(label, partial(_change, file, names, change, one)))
    return damages


def _change(file: str, names: list[str], change: Change, one: bool, folder: Path, rng: random.Random) -> None:
    state = load_file(folder / file)
    for name in [rng.choice(names)] if one else names:
        changed = change(state.pop(name), rng)
        if changed is not None:
            state[name] = changed
    save_file(state, folder / file, metadata={"format": "pt"})


def _extra(file: str, folder: Path, _: random.Random) -> None:
    state = load_file(folder / file)
    save_file({**state, "extra.weight": torch.zeros(3)}, folder / file, metadata={"format": "pt"})


def header_damages(file: str) -> list[Damage]:
    """The header's length, and the entries of one tensor drawn for the case."""
    lengths = {"0": 0, "1": 1, "2**63": 2**63, "2**64 - 1": 2**64 - 1, "100,000,001": 100_000_001, "2**31": 2**31}
    damages = [Damage(f"{file}: header length {name}", partial(_length, file, to)) for name, to in lengths.items()]
    entries: dict[str, Callable[[dict[str, Any]], Any]] = {
        "beyond the file": lambda entry: entry | {"data_offsets": [at + 2**40 for at in entry["data_offsets"]]},
        "overlapping": lambda entry: entry | {"data_offsets": [0, entry["data_offsets"][1] - entry["data_offsets"][0]]},
        "backwards": lambda entry: entry | {"data_offsets": entry["data_offsets"][::-1]},
        "with negative offsets": lambda entry: entry | {"data_offsets": [-1, 1]},
        "with offsets of 2**64": lambda entry: entry | {"data_offsets": [2**64 - 1, 2**64]},
        "with a huge shape": lambda entry: entry | {"shape": [2**40, 2**40]},
        "with a negative shape": lambda entry: entry | {"shape": [-1, -1]},
        "with a thousand axes": lambda entry: entry | {"shape": entry["shape"] + [1] * 1000},
        "of an unknown dtype": lambda entry: entry | {"dtype": "X7"},
        "of dtype F32": lambda entry: entry | {"dtype": "F32"},
        "of dtype I16": lambda entry: entry | {"dtype": "I16"},
        "of dtype null": lambda entry: entry | {"dtype": None},
        "without offsets": lambda entry: {"dtype": entry["dtype"], "shape": entry["shape"]},
        "that is a list": lambda entry: [entry],
        "that is a number": lambda entry: 5,
    }
    damages += [Damage(f"{file}: an entry {kind}", partial(_entry, file, to)) for kind, to in entries.items()]
    notes = {"absent": None, "a list": [1], "another format": {"format": "tf"}, "nested": {"a": {"b": 1}}, "empty": {}}
    return damages + [Damage(f"{file}: metadata {kind}", partial(_notes, file, to)) for kind, to in notes.items()]


def _length(file: str, length: int, folder: Path, _: random.Random) -> None:
    path = folder / file
    path.write_bytes(struct.pack("<Q", length) + path.read_bytes()[8:])


def _entry(file: str, change: Callable[[dict[str, Any]], Any], folder: Path, rng: random.Random) -> None:
    header, data = _split(folder / file)
    name = rng.choice(sorted(header.keys() - {"__metadata__"}))
    _join(folder / file, header | {name: change(header[name])}, data)


def _notes(file: str, notes: Any, folder: Path, _: random.Random) -> None:
    header, data = _split(folder / file)
    header.pop("__metadata__", None)
    _join(folder / file, header if notes is None else {"__metadata__": notes, **header}, data)


def _split(path: Path) -> tuple[dict[str, Any], bytes]:
    content = path.read_bytes()
    end = 8 + struct.unpack("<Q", content[:8])[0]
    return json.loads(content[8:end]), content[end:]


def _join(path: Path, header: dict[str, Any], data: bytes) -> None:
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
