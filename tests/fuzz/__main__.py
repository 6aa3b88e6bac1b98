"""Runs fuzz cases by hand: ``python -m tests.fuzz checkpoints --first 1234 --count 1 --seed 0 --keep``.

Prints every case that fails: its number, what was damaged, what came of it. Ends with status 1 where one did.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from .guard import SECONDS, Ending, Guard

GENERATORS = ("checkpoints", "graphs", "profiles", "adapters", "images")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("generator", choices=GENERATORS)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--count", type=int, default=1, help="how many cases")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="guard against hangs, for one case")
    parser.add_argument("--scratch", type=Path, help="folder of the damaged files; default: a new temporary one")
    parser.add_argument("--keep", action="store_true", help="leave the damaged files there, and print every outcome")
    asked = parser.parse_args()
    scratch = asked.scratch or Path(tempfile.mkdtemp(prefix="qsit-fuzz-"))
    scratch.mkdir(parents=True, exist_ok=True)
    begin = time.monotonic()
    endings = []
    with Guard(scratch, seconds=asked.seconds, keep=asked.keep) as guard:
        for number in range(asked.first, asked.first + asked.count):
            endings.append(guard.run(asked.generator, number, asked.seed))
            if endings[-1].trouble or asked.keep:
                print(endings[-1].report(), f"folder: {endings[-1].folder}" if asked.keep else "", sep="\n", flush=True)
    _summary(endings, time.monotonic() - begin)
    return int(any(ending.trouble for ending in endings))


def _summary(endings: list[Ending], seconds: float) -> None:
    failed = sum(bool(ending.trouble) for ending in endings)
    print(f"{len(endings)} cases in {seconds:.0f} s, {failed} failed")
    kinds = Counter(ending.outcome.split(":")[0].split(" ")[0] for ending in endings)
    print("ended in:", ", ".join(f"{name} {count}" for name, count in kinds.most_common()))
    slowest = max(endings, key=lambda ending: ending.seconds)
    print(f"slowest: case {slowest.number}, {slowest.seconds:.1f} s ({slowest.label:.200})")
    largest = max(endings, key=lambda ending: ending.peak)
    print(f"most memory: case {largest.number}, {largest.peak / 2**30:.2f} GiB ({largest.label:.200})")


if __name__ == "__main__":
    sys.exit(main())
