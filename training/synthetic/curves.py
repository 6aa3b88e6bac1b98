"""The curves of a run, from what the stages printed.

python -m qsit_plugin.training.nano.make --photos PHOTOS --out made | tee made.log
python -m qsit_plugin.training.synthetic.curves made.log --csv curves.csv --png curves.png
"""

from __future__ import annotations

import argparse
import csv
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

STAGE = re.compile(r"^(\w+):$")
"""What make.py prints before a stage."""

LINE = re.compile(r"^(P )?step (\d+)(?: of \d+)? (.*)$")
PAIR = re.compile(r"([a-z]+) (-?\d+\.\d+)(?= |$)")
HELD_OUT = re.compile(r"'(srcc|named)': (\d+\.\d+)")

PANELS = (
    ("tower", ("loss",)),
    ("tower", ("held out srcc", "held out named")),
    ("language", ("level", "letter", "first")),
    ("joint", ("level", "letter", "first")),
)
"""What is drawn side by side, of the stages that ran."""


def points(lines: Iterable[str]) -> Iterator[tuple[str, int, str, float]]:
    """(stage, step, figure, value) of every figure that was printed."""
    stage, step = "", 0
    for line in lines:
        if header := STAGE.match(line):
            stage = header[1]
        elif line.startswith(" held out"):
            yield from ((stage, step, f"held out {name}", float(value)) for name, value in HELD_OUT.findall(line))
        elif found := LINE.match(line):
            step, here = int(found[2]), "projector" if found[1] else stage
            yield from ((here, step, name, float(value)) for name, value in PAIR.findall(found[3]))


def draw(rows: list[tuple[str, int, str, float]], path: Path) -> None:
    """Four panels: the tower's loss and held-out figures, and the losses of the language model and the joint stage."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    run = {stage for stage, *_ in rows}
    plans = [(stage, names) for stage, names in PANELS if stage in run]
    figure, panels = pyplot.subplots(1, len(plans), figsize=(3.75 * len(plans), 3.4), squeeze=False)
    for panel, (stage, names) in zip(panels[0], plans, strict=True):
        for name in names:
            known = [(step, value) for at, step, called, value in rows if at == stage and called == name]
            panel.plot(*zip(*known, strict=True), label=name, marker="." if len(known) < 12 else None)
        panel.set_title(stage)
        panel.set_xlabel("step")
        panel.grid(alpha=0.3)
        panel.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=90)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("logs", nargs="+", help="what the stages printed, in their order")
    parser.add_argument("--csv", default=None)
    parser.add_argument("--png", default=None, help="needs matplotlib")
    args = parser.parse_args()
    rows = [row for log in args.logs for row in points(Path(log).read_text(encoding="utf-8").splitlines())]
    if args.csv:
        with Path(args.csv).open("w", encoding="utf-8", newline="") as stream:
            csv.writer(stream, lineterminator="\n").writerows([("stage", "step", "figure", "value"), *rows])
    if args.png:
        draw(rows, Path(args.png))


if __name__ == "__main__":
    main()
