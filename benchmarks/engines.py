"""The torch engine against the ONNX engine, in one run on one machine.

    python benchmarks/engines.py                            # qsit-nano, about three minutes
    python benchmarks/engines.py --model my-checkpoint/ --rounds 9

The checkpoint is copied into a temporary folder and its graphs are exported there. First, fresh processes take turns:
from their start to the first score of a picture, wall time, processor time and peak memory. Then one process holds
the checkpoint on both engines, which take turns at each job; every figure is a median over the rounds, every ratio the
median of the rounds' ratios. Wall time means something only where nothing else runs; processor time counts the waiting
of several threads, so set OMP_NUM_THREADS=1 for it. Needs Linux, for the peak memory.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

ENGINES = ("torch", "onnx")
QUESTIONS = ("Is it blurry?", "Is it noisy?", "Which distortion is most visible in this image?")
MIXED = [(512, 512), (640, 480), (1024, 768), (300, 451)] * 4
FRESH = (
    "import os, re, sys; import qsit_plugin as qsit\n"
    "print(qsit.load(sys.argv[1], engine=sys.argv[2], device='cpu', dtype='float32').score(sys.argv[3]).value)\n"
    r"print(re.search(r'VmHWM:\s+(\d+)', open('/proc/self/status').read())[1], sum(os.times()[:2]))"
)


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    """Smooth colours with some noise."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize((width, height))
    noisy = np.asarray(small, np.int16) + rng.integers(-20, 21, (height, width, 1))
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def fresh(folder: Path, photo: Path, engine: str) -> tuple[float, float, float]:
    """Seconds of wall and of processor, and MiB, of a process that scores one picture."""
    begun = time.perf_counter()
    command = [sys.executable, "-c", FRESH, str(folder), engine, str(photo)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    wall = time.perf_counter() - begun
    peak, processor = done.stdout.split()[1:]
    return wall, float(processor), int(peak) / 1024


def turns(contenders: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[tuple[float, float]]]:
    """(wall, processor) seconds of each round; one round before is not counted."""
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in contenders}
    for number in range(rounds + 1):
        for name in contenders if number % 2 else reversed(contenders):
            wall, processor = time.perf_counter(), time.process_time()
            contenders[name]()
            if number:
                taken[name].append((time.perf_counter() - wall, time.process_time() - processor))
    return taken


def line(title: str, taken: dict[str, list[tuple[float, ...]]]) -> str:
    """Medians in milliseconds, and how many times as fast ONNX is."""
    cells = []
    for number in range(2):
        columns = [[one[number] for one in taken[engine]] for engine in ENGINES]
        ratio = statistics.median(a / b for a, b in zip(*columns, strict=True))
        cells += [f"{statistics.median(column) * 1000:8.1f}" for column in columns] + [f"{ratio:6.2f}"]
    return f"{title:28}" + "".join(cells)


def score_and_ask(model: Any, image: Image.Image) -> None:
    look = model.encode(image)
    look.score()
    for question in QUESTIONS:
        look.ask(question, max_new_tokens=40)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="qsit-nano")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    import qsit_plugin as qsit
    from qsit_plugin.checkpoint.onnx_export import export_onnx
    from qsit_plugin.weights import resolve

    with tempfile.TemporaryDirectory() as place:
        folder = Path(shutil.copytree(resolve(given.model), Path(place) / "checkpoint"))
        export_onnx(folder)
        photo = Path(place) / "photo.png"
        picture(512, 512).save(photo)
        print(f"Python {platform.python_version()} on {platform.machine()}, {os.cpu_count()} cores")
        print(f"{'':28}{'wall: torch, onnx, ratio':>22}{'processor: torch, onnx, ratio':>30}")
        found = {engine: [fresh(folder, photo, engine) for _ in range(given.rounds)] for engine in ENGINES}
        print(line("fresh process, first score", found))
        peaks = [statistics.median(one[2] for one in found[engine]) for engine in ENGINES]
        print(f"{'its peak memory, MiB':28}" + "".join(f"{peak:8.0f}" for peak in peaks))
        models = {engine: qsit.load(folder, engine=engine, device="cpu", dtype="float32") for engine in ENGINES}
        jobs: dict[str, Callable[[Any], Any]] = {}
        for width, height in ((512, 512), (1024, 768), (4000, 3000)):
            image = picture(width, height)
            jobs[f"score {width}x{height}"] = lambda model, image=image: model.score(image)
        mixed = [picture(*size, seed) for seed, size in enumerate(MIXED)]
        jobs["score 16 mixed"] = lambda model: model.score(mixed)
        jobs["score + 3 questions, 512x512"] = lambda model: score_and_ask(model, mixed[0])
        jobs["explain 4 mixed"] = lambda model: model.explain(mixed[:4], max_new_tokens=60)
        for title, job in jobs.items():
            contenders = {engine: (lambda model=model, job=job: job(model)) for engine, model in models.items()}
            print(line(title, turns(contenders, given.rounds)))


if __name__ == "__main__":
    main()
