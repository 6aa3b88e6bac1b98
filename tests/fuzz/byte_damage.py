"""Damages that look at no meaning: bytes of a file flipped, cut, repeated, and files that are none."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from .case import Damage

EXTREMES = (0, 1, -1, 2**7 - 1, 2**7, 2**8 - 1, 2**15 - 1, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1)
"""Integers at which sizes overflow or lose their sign."""

HUGE = 8 * 2**30
"""Bytes of a file that nobody may read whole. It is sparse, so it takes no room where the file system knows that."""


def flipped(data: bytes, rng: random.Random) -> bytes:
    """One to twenty bits the other way round."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 20) if data else 0):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def truncated(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def block_deleted(data: bytes, rng: random.Random) -> bytes:
    start, end = _block(data, rng)
    return data[:start] + data[end:]


def block_repeated(data: bytes, rng: random.Random) -> bytes:
    start, end = _block(data, rng)
    return data[:end] + data[start:end] * rng.randint(1, 4) + data[end:]


def blocks_swapped(data: bytes, rng: random.Random) -> bytes:
    (a, b), (c, d) = sorted((_block(data, rng), _block(data, rng)))
    return data if c < b else data[:a] + data[c:d] + data[b:c] + data[a:b] + data[d:]


def block_random(data: bytes, rng: random.Random) -> bytes:
    start, end = _block(data, rng)
    return data[:start] + rng.randbytes(end - start) + data[end:]


def integer_overwritten(data: bytes, rng: random.Random, within: int | None = None) -> bytes:
    """An integer of 1, 2, 4 or 8 bytes, anywhere in the first ``within`` bytes, is an extreme one."""
    width, order = rng.choice((1, 2, 4, 8)), rng.choice(("little", "big"))
    start = rng.randrange(max(1, min(len(data), within or len(data)) - width + 1))
    value = rng.choice(EXTREMES) % (1 << 8 * width)
    return data[:start] + value.to_bytes(width, order) + data[start + width :]


def header_overwritten(data: bytes, rng: random.Random) -> bytes:
    return integer_overwritten(data, rng, within=64)


CHANGES: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "bits flipped": flipped,
    "truncated": truncated,
    "block left out": block_deleted,
    "block repeated": block_repeated,
    "blocks swapped": blocks_swapped,
    "block random": block_random,
    "integer overwritten": integer_overwritten,
    "integer in its header overwritten": header_overwritten,
}


def byte_damages(names: Sequence[str]) -> list[Damage]:
    """Each file with each change of its bytes, at a place drawn for the case."""
    return [
        Damage(f"{name}: {kind}", partial(_rewrite, name, change)) for name in names for kind, change in CHANGES.items()
    ]


def file_damages(names: Sequence[str]) -> list[Damage]:
    """Each file absent, or something else than a file of a reasonable size."""
    kinds = {"absent": _absent, "a folder": _folder}
    if os.name == "posix":  # Windows wants a privilege for links, has no pipes of this kind and fills every hole
        kinds |= {
            "a link to itself": _loop,
            "a link to nothing": _dangling,
            "a link out of the folder": _linked,
            "a named pipe": _pipe,
            "8 GiB of zeros": _huge,
        }
    return [Damage(f"{name}: {kind}", partial(make, name)) for name in names for kind, make in kinds.items()]


def _rewrite(name: str, change: Callable[[bytes, random.Random], bytes], folder: Path, rng: random.Random) -> None:
    path = folder / name
    if path.is_file():  # another damage may have removed it before
        path.write_bytes(change(path.read_bytes(), rng))


def _absent(name: str, folder: Path, _: random.Random) -> None:
    path = folder / name
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def _folder(name: str, folder: Path, rng: random.Random) -> None:
    _absent(name, folder, rng)
    (folder / name).mkdir()


def _loop(name: str, folder: Path, rng: random.Random) -> None:
    _absent(name, folder, rng)
    os.symlink(name, folder / name)


def _dangling(name: str, folder: Path, rng: random.Random) -> None:
    _absent(name, folder, rng)
    os.symlink("nothing", folder / name)


def _linked(name: str, folder: Path, _: random.Random) -> None:
    if (folder / name).is_file():
        shutil.move(folder / name, folder.parent / f"outside-{name}")
        os.symlink(folder.parent / f"outside-{name}", folder / name)


def _pipe(name: str, folder: Path, rng: random.Random) -> None:
    _absent(name, folder, rng)
    os.mkfifo(folder / name)


def _huge(name: str, folder: Path, _: random.Random) -> None:
    with open(folder / name, "ab") as file:
        file.truncate(HUGE)


def _block(data: bytes, rng: random.Random) -> tuple[int, int]:
    """Start and end of a block of up to 4,096 bytes."""
    start = rng.randrange(len(data) + 1)
    return start, min(len(data), start + rng.randint(1, 4096))
