"""How long the first second takes: imports, --help, one score from start to exit, memory, the interpreter's own start.

    python benchmarks/startup.py PHOTO

Run it with the interpreter of an environment in which the package is installed. Contenders alternate within one run;
medians are printed. Peak memory needs a system with the ``resource`` module (not Windows).
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import time

MODEL = "LlavaOnevisionForConditionalGeneration"
PEAK = (
    "import resource, sys, runpy; sys.argv = ['qsit', 'score', sys.argv[1]]\n"
    "try: runpy.run_module('qsit_plugin.cli', run_name='__main__')\n"
    "finally: sys.stderr.write('PEAK %d\\n' % resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
)


def seconds(command: list[str], **environment: str) -> float:
    """Wall time of one process, from start to exit."""
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, env=os.environ | environment)
    return time.perf_counter() - start


def medians(contenders: dict[str, tuple[list[str], dict[str, str]]], rounds: int) -> dict[str, float]:
    """Median seconds a contender; the contenders take turns, and one round before is not counted."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds + 1):
        for name, (command, environment) in contenders.items():
            taken = seconds(command, **environment)
            if number:
                times[name].append(taken)
    return {name: statistics.median(taken) for name, taken in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photo")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    python, cli = sys.executable, [sys.executable, "-m", "qsit_plugin.cli"]
    light = {
        "python -c pass, hook on": ([python, "-c", "pass"], {}),
        "python -c pass, no .pth files (-I -S)": ([python, "-I", "-S", "-c", "pass"], {}),
        "import qsit_plugin": ([python, "-c", "import qsit_plugin"], {}),
        "qsit --help": ([*cli, "--help"], {}),
    }
    heavy = {
        "import torch, transformers": ([python, "-c", "import torch, transformers"], {}),
        "the same with the model class": (
            [python, "-c", f"import torch; from transformers import {MODEL}, AutoTokenizer"],
            {},
        ),
        "qsit score PHOTO": ([*cli, "score", args.photo], {}),
    }
    print(f"Python {platform.python_version()}, {platform.machine()}, {os.cpu_count()} cores, median of {args.rounds}")
    for name, taken in {**medians(light, 4 * args.rounds), **medians(heavy, args.rounds)}.items():
        print(f"{name:40s} {taken * 1000:8.1f} ms")
    run = subprocess.run([python, "-c", PEAK, args.photo], capture_output=True, text=True)
    print(f"{'peak memory of qsit score':40s} {int(run.stderr.split('PEAK ')[1].split()[0]) / 1024:8.0f} MiB")


if __name__ == "__main__":
    main()
