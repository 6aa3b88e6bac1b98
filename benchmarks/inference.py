"""Scoring and explaining, ours against the released procedure, in one run on one machine.

    python benchmarks/inference.py --out benchmarks/results            # nano and a scaled-down official shape, CPU
    python benchmarks/inference.py --shapes mini 7b --device cuda --dtype float16 --out benchmarks/results
    python benchmarks/inference.py --quick                             # two minutes: two rounds, fewer sizes

Every contender starts from the same checkpoint folder and from the bytes of JPEG files. In each round they take turns,
the released procedure first and last; a ratio is its time (mean of the two) by the contender's in that round, and the
tables show the median over the rounds, so that load from elsewhere hits all alike. Counted work, peak memory and scores
come from a separate pass, which is not timed. Weights and photos follow from ``--seed``.

Contenders: ``released`` is the authors' script (Pillow's processor, batch 1, ``generate``); ``fast processor`` the
same with transformers' torchvision processor; ``pyiqa way`` is how pyiqa runs large multimodal models (tensor, Pillow,
batch 1, logits of all positions); ``forward`` is transformers' own forward without ``generate``, with one cached image
for several questions (inference_forward.py); ``ours, one by one`` and ``ours`` (lists in one call) are this package.
Optional: ``--reduced bfloat16`` for released and ours in another number format.

The ratio of work is that of the processor time of all threads: other programs hardly touch it, while the clock on a
busy machine says little. With several threads it also counts their waiting.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # the package and the tests' helpers of this checkout, also where another is installed

from inference_inputs import MIXED, SHAPES, SIZES, checkpoint, photo_file  # noqa: E402
from inference_tables import document  # noqa: E402
from pyiqa_metrics import processor  # noqa: E402

WORKER = Path(__file__).with_name("inference_worker.py")
RELEASED = "released"


class Process:
    """A worker process that holds one checkpoint; see inference_worker.py."""

    def __init__(self, *arguments: str):
        self.process = subprocess.Popen(
            [sys.executable, str(WORKER), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            encoding="utf-8",
            env=os.environ | {"HF_HUB_OFFLINE": "1"},
        )
        start = time.perf_counter()
        self.about = self._read()
        self.start_seconds = time.perf_counter() - start

    def ask(self, **command: Any) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()
        return self._read()

    def _read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{' '.join(self.process.args)} ended; run it by hand to see why")  # type: ignore[arg-type]
        return json.loads(line)

    def close(self) -> None:
        self.process.stdin.close()  # type: ignore[union-attr]
        self.process.wait()


def contenders(processes: dict[str, Process]) -> dict[str, tuple[Process, str]]:
    """Name -> the process it lives in and the way that it goes there."""
    found = {RELEASED: (processes["hf"], "slow"), "fast processor": (processes["hf"], "fast")}
    found["pyiqa way"] = (processes["hf"], "pyiqa")
    found["forward"] = (processes["hf"], "forward")
    found["ours, one by one"] = (processes["ours"], "one")
    found["ours"] = (processes["ours"], "batch")
    for name, process in processes.items():
        if name.startswith("hf "):
            found[f"released, {name[3:]}"] = (process, "slow")
        elif name.startswith("ours "):
            found[f"ours, {name[5:]}"] = (process, "batch")
    return found


def tasks_of(args: argparse.Namespace, shape: str, photos: Path) -> list[dict[str, Any]]:
    def file(size: tuple[int, int], number: int = 0) -> str:
        return photo_file(photos, *size, args.seed + number)

    sizes = [size for size in SIZES if not args.quick or size in ((512, 512), (1024, 768), (4032, 3024))]
    tasks = [{"task": f"score {w}×{h}", "do": "score", "files": [file((w, h))]} for w, h in sizes]
    mixed = [file(size, number) for number in range(2) for size in MIXED]
    tasks.append({"task": "score 16 of mixed sizes", "do": "score", "files": mixed})
    tasks.append({"task": "score + 3 questions, 1024×768", "do": "score+3", "files": [file((1024, 768))]})
    tokens = 60 if shape == "nano" else 8  # random weights repeat themselves, which ours would cut
    tasks.append({"task": "explain 4 of mixed sizes", "do": "explain", "files": mixed[:4], "tokens": tokens})
    tasks.append({"task": "explain 16 of mixed sizes", "do": "explain", "files": mixed, "tokens": tokens})
    return [task for task in tasks if not args.tasks or any(word in task["task"] for word in args.tasks)]


def takes_part(name: str, way: str, task: dict[str, Any]) -> bool:
    if way == "pyiqa":
        return task["do"] == "score"  # it does not talk
    return way != "one" or len(task["files"]) > 1  # the same as "ours" elsewhere


def run_task(
    task: dict[str, Any], names: dict[str, tuple[Process, str]], rounds: int, first: str = RELEASED
) -> list[dict[str, Any]]:
    """The rows of one task: one a contender."""
    command = {key: value for key, value in task.items() if key != "task"}
    part = {name: at for name, at in names.items() if takes_part(name, at[1], task)}
    rows: dict[str, dict[str, Any]] = {}
    for name, (process, way) in part.items():
        counted = process.ask(**command, way=way, count=True)  # the first touch of every size, not timed
        rows[name] = {"task": task["task"], "contender": name, "images": len(task["files"]), **counted}
    taken: dict[str, list[float]] = {name: [] for name in part}
    inner: dict[str, list[float]] = {name: [] for name in part}
    ratios: dict[str, list[float]] = {name: [] for name in part}
    work: dict[str, list[float]] = {name: [] for name in part}
    for _ in range(rounds):
        this = {name: process.ask(**command, way=way) for name, (process, way) in part.items()}
        again = part[first][0].ask(**command, way=part[first][1])
        reference, busy = ((this[first][key] + again[key]) / 2 for key in ("seconds", "busy"))
        for name, result in this.items():
            taken[name].append(result["seconds"])
            inner[name] += [result["model_seconds"]] if "model_seconds" in result else []
            ratios[name].append(reference / (reference if name == first else result["seconds"]))
            work[name].append(busy / (busy if name == first else result["busy"]))
        taken[first].append(again["seconds"])
    for name, row in rows.items():
        row |= {"seconds": taken[name], "model_seconds": inner[name], "ratio": statistics.median(ratios[name])}
        row |= {"ratios": ratios[name], "work_ratio": statistics.median(work[name])}
    return list(rows.values())


def accuracy(
    args: argparse.Namespace, names: dict[str, tuple[Process, str]], truth: Process, photos: Path
) -> list[dict[str, Any]]:
    """Mean and largest error of the score over many photos against the released procedure in more digits."""
    side = [(160 + 37 * i % 400, 160 + 53 * i % 300) for i in range(16 if args.quick else 64)]
    files = [photo_file(photos, w, h, args.seed + 100 + i) for i, (w, h) in enumerate(side)]
    exact = truth.ask(do="score", files=files, way="slow", count=True)["result"]
    pixels = names[RELEASED][0].ask(do="digest", files=files, way="slow")["digests"]
    rows = []
    for name, (process, way) in names.items():
        if way == "one":
            continue
        scores = process.ask(do="score", files=files, way=way, count=True)["result"]
        errors = [abs(a - b) for a, b in zip(scores, exact, strict=True)]
        row = {"contender": name, "photos": len(files), "mean": statistics.mean(errors), "largest": max(errors)}
        same = [a == b for a, b in zip(process.ask(do="digest", files=files, way=way)["digests"], pixels, strict=True)]
        row["pixels_equal"] = sum(same) if "," not in name else None  # in another dtype they cannot be equal
        rows.append(row)
    return [{"spread": statistics.stdev(exact)}, *rows]


def measure(args: argparse.Namespace, shape: str, work: Path) -> dict[str, Any]:
    folder = str(checkpoint(shape, work, seed=args.seed, device=args.device))
    wanted = {"hf": ("hf", args.dtype), "ours": ("ours", args.dtype)}
    for dtype in args.reduced:
        wanted |= {f"hf {dtype}": ("hf", dtype), f"ours {dtype}": ("ours", dtype)}
    exact = "float64" if args.device == "cpu" else "float32"
    with contextlib.ExitStack() as stack:
        processes = {}
        for name, (kind, dtype) in wanted.items():
            processes[name] = Process(kind, folder, args.device, dtype)
            stack.callback(processes[name].close)
        names = contenders(processes)
        if args.contenders:
            names = {name: at for name, at in names.items() if name in (args.reference, *args.contenders)}
        rows = []
        for task in tasks_of(args, shape, work / "photos"):
            rows += run_task(task, names, args.rounds, args.reference)
            print(f"{shape}: {task['task']}: {short(rows, task['task'])}", file=sys.stderr, flush=True)
        peaks = {dtype: processes[f"ours {dtype}"].ask(do="peak_flops", files=[])["flops"] for dtype in args.reduced}
        peaks[args.dtype] = processes["ours"].ask(do="peak_flops", files=[])["flops"]
        about = {"threads": processes["ours"].about["threads"]}
        about |= {"start_seconds": {name: process.start_seconds for name, process in processes.items()}}
        errors: list[dict[str, Any]] = []
        if shape in args.accuracy:
            truth = Process("hf", folder, args.device, exact)
            stack.callback(truth.close)
            errors = accuracy(args, names, truth, work / "photos")
    config = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))
    return {
        "shape": shape,
        **about,
        "exact": exact,
        "peak_flops": peaks,
        "rows": rows,
        "errors": errors,
        "config": config,
    }


def short(rows: list[dict[str, Any]], task: str) -> str:
    own = [row for row in rows if row["task"] == task]
    return ", ".join(f"{row['contender']} {row['ratio']:.2f} (work {row['work_ratio']:.2f})" for row in own)


def machine(args: argparse.Namespace) -> str:
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("torch", "transformers", "pillow"))
    where = f"{processor()}, {os.cpu_count()} cores"
    if args.device != "cpu":
        import torch

        where = f"{torch.cuda.get_device_name()}; {where}"
    load = f"; load average at the start {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    return (
        f"{where}; {platform.system()}, Python {platform.python_version()}, {versions}; {args.dtype}; "
        f"seed {args.seed}; {args.rounds} rounds; {datetime.date.today()}{load}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", choices=["nano", *SHAPES], default=["nano", "small"])
    parser.add_argument("--accuracy", nargs="*", default=["nano", "small"], metavar="SHAPE", help="with score errors")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=["float32", "float16", "bfloat16"])
    parser.add_argument("--reduced", nargs="*", default=[], choices=["float16", "bfloat16"], help="as well in these")
    parser.add_argument("--tasks", nargs="+", metavar="WORD", help="only the tasks whose name holds one of these words")
    parser.add_argument("--contenders", nargs="+", metavar="NAME", help="only these, and the reference")
    parser.add_argument("--reference", default=RELEASED, metavar="NAME", help="whose time the ratios are of (released)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="two rounds, three sizes, 16 photos for the errors")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, help="folder for photos and weights, kept; default: a temporary one")
    parser.add_argument("--out", type=Path, help="folder for inference-MACHINE.md and .json")
    args = parser.parse_args()
    args.rounds = min(args.rounds, 2) if args.quick else args.rounds
    about = machine(args)
    with tempfile.TemporaryDirectory() as scratch:
        work = args.work or Path(scratch)
        results = [measure(args, shape, work) for shape in args.shapes]
    print(document(about, results))
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        name = about.split(";")[0].split(",")[0]
        base = args.out / f"inference-{re.sub('[^a-z0-9]+', '-', name.lower()).strip('-')}"
        base.with_suffix(".md").write_text(document(about, results), encoding="utf-8")
        places = {args.out: "OUT", args.work: "WORK"}  # no path of that machine in a result that is published
        command = " ".join(places.get(Path(word), word) for word in sys.argv[1:])
        content = {"about": about, "command": command, "results": results}
        base.with_suffix(".json").write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
