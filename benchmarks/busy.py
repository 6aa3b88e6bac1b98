"""Scores on a machine that other programs keep busy: both engines, and how torch's threads wait.

    python benchmarks/busy.py                       # qsit-nano, 16 images, one busy process a core

Each contender is a process of its own that opens the model, scores once and then times 16 images; contenders take
turns, while one busy process a core computes. Wall and processor seconds, medians of the rounds, and how many times as
long as the ONNX engine each contender took, the median of the rounds' ratios. Needs both engines.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator

WORK = """
import sys, time
import numpy as np
import qsit_plugin
model = qsit_plugin.load("qsit-nano", engine=sys.argv[1], device="cpu", dtype="float32")
rng = np.random.default_rng(0)
SIZES = [(512, 512, 3), (300, 451, 3)]
images = [rng.integers(0, 256, size, dtype=np.uint8) for size in SIZES * (int(sys.argv[2]) // 2)]
model.score(images[0])
wall, processor = time.perf_counter(), time.process_time()
model.score(images)
print(time.perf_counter() - wall, time.process_time() - processor)
"""
BUSY = "import hashlib\nwhile True: hashlib.sha256(bytes(65536)).digest()"
CONTENDERS: dict[str, tuple[str, dict[str, str]]] = {
    "torch as it comes": ("torch", {}),
    "torch, OMP_WAIT_POLICY=PASSIVE": ("torch", {"OMP_WAIT_POLICY": "PASSIVE"}),
    "onnx": ("onnx", {}),
}


@contextlib.contextmanager
def load(processes: int) -> Iterator[None]:
    """That many processes that compute without a pause."""
    running = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(processes)]
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


def measured(engine: str, environment: dict[str, str], images: int) -> tuple[float, float]:
    """Wall and processor seconds of one contender."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("OMP_")}
    command = [sys.executable, "-c", WORK, engine, str(images)]
    done = subprocess.run(command, env=inherited | environment, check=True, capture_output=True, text=True)
    wall, processor = map(float, done.stdout.split())
    return wall, processor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--busy", type=int, default=os.cpu_count() or 1, help="busy processes")
    parser.add_argument("--images", type=int, default=16, help="an even number")
    given = parser.parse_args()
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in CONTENDERS}
    with load(given.busy):
        for _ in range(given.rounds):
            for name, contender in CONTENDERS.items():
                taken[name].append(measured(*contender, given.images))
    print(f"{'':34}{'wall s':>9}{'processor s':>13}{'times onnx':>12}   {given.busy} busy, {os.cpu_count()} cores")
    for name, found in taken.items():
        wall, processor = (statistics.median(column) for column in zip(*found, strict=True))
        times = statistics.median(own[0] / onnx[0] for own, onnx in zip(found, taken["onnx"], strict=True))
        print(f"{name:34}{wall:9.2f}{processor:13.2f}{times:12.2f}")


if __name__ == "__main__":
    main()
