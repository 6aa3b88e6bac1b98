"""The fingerprint of a checkpoint's weights: twelve hexadecimal digits that stand beside every score."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any, TypeAlias

from qsit_plugin.weights.adapter_limits import CONFIG, WEIGHTS
from qsit_plugin.weights.errors import refusing
from qsit_plugin.weights.folder import weight_files
from qsit_plugin.weights.json_file import read_json

UNSAVED = "unsaved"
"""In the place of a fingerprint: the weights were changed in memory, and no file holds them."""

DIGITS = 12
"""Two of a thousand checkpoints have the same digits with a probability of 2e-9."""
WHOLE = 4096
"""Bytes up to which a tensor is read whole."""
BLOCKS, BLOCK = 16, 256
"""A larger tensor is read in so many blocks of so many bytes."""
LARGEST_HEADER = 100_000_000
"""Bytes, as for safetensors itself: a damaged file may ask for any number."""

_STRENGTH = ("alpha_pattern", "fan_in_fan_out", "lora_alpha", "r", "rank_pattern", "use_dora", "use_rslora")
"""Settings of an adapter on which, besides its tensors, the merged weights depend."""

_Header: TypeAlias = dict[str, dict[str, Any]]


def fingerprint(folder: str | os.PathLike[str], adapter: str | os.PathLike[str] | None = None) -> str:
    """Twelve hexadecimal digits: SHA-256 over the weights of a checkpoint folder, and of the adapter that is merged in.

    It depends on the tensors' names, shapes, dtypes and values as they are stored; not on the folder, on how the
    tensors are spread over files, or on any setting beside them. The same weights in another dtype, and an adapter that
    was merged and saved, are other weights.

    Of a tensor of up to 4,096 bytes every byte is read; of a larger one 16 blocks of 256 bytes, spread evenly from its
    first byte to its last. So it takes milliseconds for 16 GB also. Training moves all numbers of a tensor and is
    seen; a change of a few numbers (a flipped bit, one row of an embedding) may fall between the blocks and is not. To
    find damage, ``golden.json`` and ``qsit weights verify`` are there.

    Raises WeightsError for files that are missing or broken.
    """
    total = hashlib.sha256()
    for files in [weight_files(Path(folder))] + ([[Path(adapter) / WEIGHTS]] if adapter is not None else []):
        for name, digest in sorted(pair for file in files for pair in _digests(file)):
            total.update(name.encode("utf-8", "surrogatepass") + b"\0" + digest)
    if adapter is not None:
        settings = read_json(Path(adapter) / CONFIG)
        total.update(json.dumps([settings.get(key) or None for key in _STRENGTH], sort_keys=True).encode())
    return total.hexdigest()[:DIGITS]


def _digests(file: Path) -> list[tuple[str, bytes]]:
    """Name and SHA-256 of every tensor of a safetensors file, of its dtype, shape and sampled bytes."""
    found = []
    with refusing(f"{file} cannot be read"), open(file, "rb", buffering=0) as stream:
        length = int.from_bytes(stream.read(8), "little")
        header: _Header = json.loads(stream.read(min(length, LARGEST_HEADER)))
        for name, about in header.items():
            if name == "__metadata__":
                continue
            digest = hashlib.sha256(json.dumps([about["dtype"], about["shape"]]).encode())
            first, end = (8 + length + offset for offset in about["data_offsets"])
            for start, stop in _samples(first, end):
                stream.seek(start)
                digest.update(stream.read(stop - start))
            found.append((name, digest.digest()))
    return found


def _samples(first: int, end: int) -> list[tuple[int, int]]:
    """From where to where a tensor's bytes are read, of the file."""
    if end - first <= WHOLE:
        return [(first, end)]
    last = end - first - BLOCK
    starts = [first + last * number // (BLOCKS - 1) for number in range(BLOCKS)]
    return [(start, start + BLOCK) for start in starts]
