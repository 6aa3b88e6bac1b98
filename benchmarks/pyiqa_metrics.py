"""What a score costs, and what the explanation costs on top: qsit-nano beside every no-reference metric of pyiqa.

    python benchmarks/pyiqa_metrics.py --out benchmarks/results

Run it with the interpreter of an environment in which the package and pyiqa are installed. Every metric has a process
of its own with the network closed: what needs a download fails at once and is listed as such, unless its weights are in
the cache already. A metric that cannot be created as released is tried with random weights, where its options allow it:
its numbers then mean nothing, its time and memory do. Of the large multimodal models only qrealign opens a checkpoint
of one's own, so it stands there with a tiny random one; qalign and compare2score name theirs in the code.

Seconds are medians over ``--rounds`` of scoring one 512 x 512 tensor after one that is not counted. Peak memory is that
of the process after creating the metric and scoring one such tensor, Python and libraries included (first row: those
alone); it needs a system with the ``resource`` module (not Windows). Everything runs on the CPU.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from pyiqa_worker import SIDE

WORKER = Path(__file__).with_name("pyiqa_worker.py")
LIMIT_MIB = 1.5e9 / 2**20


def measure(name: str, rounds: int, environment: dict[str, str]) -> dict[str, Any]:
    """The row of one metric, from a separate process; ``error`` where there is nothing to measure."""
    command = [sys.executable, str(WORKER), name, str(rounds)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, encoding="utf-8", timeout=900, env=os.environ | environment
        )
    except subprocess.TimeoutExpired:
        return {"metric": name, "error": "took more than 15 minutes"}
    lines = [line for line in done.stdout.splitlines() if line.startswith("ROW ")]
    if not lines:
        return {"metric": name, "error": f"the process ended with status {done.returncode}"}
    return {"metric": name} | json.loads(lines[-1][4:])


def names_in_question() -> list[str]:
    """Ours first, then pyiqa's, from a separate process: this one stays small, since a child inherits its peak."""
    code = "import qsit_plugin, pyiqa; qsit_plugin.register(); print('NAMES', *pyiqa.list_models(metric_mode='NR'))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("NAMES ")]
    names = line.split()[1:]
    return ["qsit-nano", "(explain)", *(name for name in names if not name.startswith("qsit"))]


def make_tiny_qrealign() -> dict[str, str]:
    """The environment variable that names a random checkpoint for pyiqa's qrealign; empty where it cannot be built."""
    code = "from tiny_qrealign import tiny_qrealign; print('FOLDER', tiny_qrealign())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parent)
    folders = [line.split(" ", 1)[1] for line in done.stdout.splitlines() if line.startswith("FOLDER ")]
    return {"QSIT_TINY_QREALIGN": folders[0]} if folders else {}


def machine(rounds: int) -> str:
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("torch", "transformers", "pyiqa"))
    threads = os.environ.get("OMP_NUM_THREADS") or os.cpu_count()
    return (
        f"{processor()}, {os.cpu_count()} cores, {threads} threads, no GPU used; {platform.system()}, "
        f"Python {platform.python_version()}, {versions}; median of {rounds}; {datetime.date.today()}"
    )


def processor() -> str:
    information = Path("/proc/cpuinfo")
    if information.is_file():
        found = re.search(r"model name\s*:\s*(.+)", information.read_text(encoding="utf-8"))
        if found:
            return found[1].strip()
    return platform.processor() or platform.machine()


def table(rows: list[dict[str, Any]], about: str) -> str:
    measured = [row for row in rows if "error" not in row]
    head = (
        "| metric | weights | million parameters | s/image | peak MiB | batch of 4 | gradient | text | distribution |"
    )
    lines = ["# qsit-nano beside pyiqa's no-reference metrics", "", about, "", memory_line(rows), "", head]
    lines.append("|---|---|---:|---:|---:|---|---|---|---|")
    for row in measured:
        size = f"{row['parameters'] / 1e6:.1f}" if "parameters" in row else ""
        seconds = f"{row['seconds']:.3f}" if "seconds" in row else ""
        peak = f"{row['peak_mib']:.0f}" if row.get("peak_mib") else ""
        words = [row.get(key, "") for key in ("batch", "gradient", "text", "distribution")]
        title = {"(import)": "importing pyiqa and torch alone", "(explain)": "qsit-nano, explain"}
        name = title.get(row["metric"], row["metric"])
        lines.append(f"| {' | '.join([name, row['weights'], size, seconds, peak, *words])} |")
    reasons: dict[str, list[str]] = {}
    for row in rows:
        if "error" in row:
            reasons.setdefault(row["error"], []).append(row["metric"])
    lines += ["", "Weights: random where the released ones cannot be had offline; tiny: the real network has billions."]
    lines += ["Batch: whether four images at once work, and give what each gives alone."]
    lines += ["Distribution: of the network as created; musiq-ava has ten outputs only with its released weights."]
    lines += ["", "Not measured:", ""]
    lines += [f"- {reason}: {', '.join(names)}" for reason, names in sorted(reasons.items())]
    return "\n".join(lines) + "\n"


def memory_line(rows: list[dict[str, Any]]) -> str:
    (ours,) = [row for row in rows if row["metric"] == "qsit-nano"]
    if not ours.get("peak_mib"):
        return f"Memory of qsit-nano was not measured: {ours.get('error', 'no resource module here')}."
    verdict = "within" if ours["peak_mib"] <= LIMIT_MIB else "MORE THAN"
    return (
        f"Creating `qsit-nano` and scoring a {SIDE}×{SIDE} tensor takes {ours['peak_mib'] * 2**20 / 1e9:.2f} GB at its "
        f"peak: {verdict} the limit of 1.5 GB."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="timed passes a metric")
    parser.add_argument("--only", nargs="+", metavar="METRIC", help="these metrics of pyiqa beside ours, not all")
    parser.add_argument("--out", type=Path, help="folder for pyiqa_metrics-PROCESSOR.md and .json")
    args = parser.parse_args()
    names = names_in_question()
    if args.only:
        if unknown := sorted(set(args.only) - set(names)):
            parser.error(f"not a no-reference metric of the installed pyiqa: {', '.join(unknown)}")
        names = [name for name in names if name in ("qsit-nano", "(explain)", *args.only)]
    tiny = make_tiny_qrealign()
    rows = []
    for name in ["(import)", *names]:
        rows.append(measure(name, args.rounds, tiny))
        print(rows[-1], file=sys.stderr, flush=True)
    for folder in tiny.values():
        shutil.rmtree(folder)
    about = machine(args.rounds)
    print(table(rows, about))
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        base = args.out / f"pyiqa_metrics-{re.sub('[^a-z0-9]+', '-', processor().lower()).strip('-')}"
        base.with_suffix(".md").write_text(table(rows, about), encoding="utf-8")
        base.with_suffix(".json").write_text(
            json.dumps({"about": about, "rows": rows}, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
        )


if __name__ == "__main__":
    main()
