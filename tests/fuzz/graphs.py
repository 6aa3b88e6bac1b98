"""Damaged checkpoints of the ONNX engine: the packaged model with its graphs and one thing wrong, asked for a score.

Some damages are of files that changed after the export: those must never give a score. The others come with hashes
that fit, so that ONNX Runtime itself meets what is wrong.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from qsit_plugin.checkpoint.onnx_record import FILE_NAME as RECORD
from qsit_plugin.checkpoint.onnx_record import SOURCES
from tests.conftest import NANO

from .byte_damage import byte_damages, file_damages
from .case import VALUES, Case, Damage, Family, Fault, chosen, rng_of
from .checkpoints import ALLOWED, WEIGHTS, groups, read
from .graph_damage import (
    GRAPHS,
    SIGNED,
    attribute_damages,
    constant_damages,
    other_graphs,
    signed,
    structure_damages,
)
from .json_damage import deletions, text_damages, value_damages
from .scoring import scored, small_picture
from .tensor_damage import header_damages, tensor_damages

NUMBER = {"short": 100, "long": 3000}
EXPORTED = (*GRAPHS, *(name for name in SOURCES if (NANO / name).is_file()))
"""Files of which every byte counts: one that differs belongs to another export."""
__all__ = ["NUMBER", "case", "prepare"]


def case(number: int, seed: int) -> Case:
    damages = chosen(families(), number, seed)
    label = "; ".join(damage.label for damage in damages)
    return Case(label, lambda folder: _run(folder, damages, number, seed), ALLOWED)


def prepare() -> None:
    """Import all that loading and scoring need, and onnx, which makes the damages."""
    import qsit_plugin

    qsit_plugin.load("qsit-nano", engine="onnx").score(small_picture())
    families()


def _run(folder: Path, damages: Sequence[Damage], number: int, seed: int) -> str:
    checkpoint = folder / "checkpoint"
    shutil.copytree(NANO, checkpoint, ignore=shutil.ignore_patterns("golden*"))
    rng = rng_of(number, seed)
    for damage in damages:
        before = _contents(checkpoint)
        damage.apply(checkpoint, rng)
    changed = [name for name, content in _contents(checkpoint).items() if content != before[name]]
    outcome = scored(folder, checkpoint, engine="onnx")
    if changed and not damages[-1].label.endswith(SIGNED):
        raise Fault(f"{', '.join(changed)} changed after the export, and a score came all the same")
    return outcome


def _contents(checkpoint: Path) -> dict[str, Any]:
    """What a file of ``EXPORTED`` holds, and the record, whose spaces do not count."""
    found = {name: _content(checkpoint / name) for name in (*EXPORTED, RECORD)}
    try:
        found[RECORD] = json.loads((checkpoint / RECORD).read_bytes())
    except (OSError, ValueError, RecursionError):
        return found
    return found


def _content(path: Path) -> Any:
    if not path.is_file() or path.stat().st_size > 2**26:  # a pipe must not be read, 8 GiB need not
        return path.exists() and path.stat().st_mode, path.stat().st_size if path.is_file() else 0
    return hashlib.sha256(path.read_bytes()).hexdigest()


@cache
def families() -> dict[str, Family]:
    record = {RECORD: read(RECORD)}
    return {
        VALUES: Family(4, [signed(one) for one in value_damages(record)]),
        "left out": Family(1, [signed(one) for one in deletions(record)]),
        "broken text": Family(1, text_damages(record)),
        "changed afterwards": Family(4, byte_damages([RECORD, *EXPORTED])),
        "files": Family(2, file_damages([RECORD, WEIGHTS, *EXPORTED])),
        "bytes": Family(6, [signed(one) for one in byte_damages(GRAPHS)]),
        "structure": Family(6, [signed(one) for one in structure_damages()]),
        "attributes": Family(4, [signed(one) for one in attribute_damages()]),
        "constants": Family(2, [signed(one) for one in constant_damages()]),
        "other graphs": Family(1, [*other_graphs(), *(signed(one) for one in other_graphs())]),
        "tensors": Family(3, [signed(one) for one in tensor_damages(WEIGHTS, groups())]),
        "header": Family(2, [signed(one) for one in header_damages(WEIGHTS)]),
    }
