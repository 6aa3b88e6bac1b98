"""What a calibration is worth, on real scores of a real model: LLaVA-1.5-13B's Q-Bench logits for KonIQ-10k.

    python benchmarks/calibration_demo.py llava_v1.5_koniq_logits.json koniq10k_votes.csv

Run it with the interpreter of an environment in which the package is installed with ``[bench]``. The logits come with
Q-Bench (leaderboards/IQA_outputs), the votes with KonIQ-10k (koniq10k_distributions_sets.csv). They are joined by image
name; the maps are fitted on the 1,000 validation images and judged on the 2,015 test images.
``--csv FILE`` also writes the joined table, which ``qsit bench calibrate FILE --scale koniq`` reads.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

from qsit_plugin.cli.bench.calibrate import report_lines
from qsit_plugin.evaluation import calibration
from qsit_plugin.evaluation.datasets.published import read_ratings
from qsit_plugin.evaluation.qbench import TEMPERATURE, read_logits

KONIQ_RANGE = (0.0, 100.0)


def joined(logits: Path, votes: Path, temperature: float) -> list[tuple[str, float, float, str]]:
    """(image, score, MOS, split) of every image that both files name."""
    rated = {Path(row.image).name: row for row in read_ratings("koniq", votes, split="all").rows}
    table = read_logits(logits)
    scores = zip(table.images, table.scores(temperature), strict=True)
    return [(name, float(score), rated[name].mos, rated[name].split) for name, score in scores if name in rated]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("logits", type=Path)
    parser.add_argument("votes", type=Path)
    parser.add_argument("--temperature", type=float, default=TEMPERATURE, help="of the softmax of (good, poor)")
    parser.add_argument("--csv", type=Path, help="also write the joined table")
    given = parser.parse_args()
    rows = joined(given.logits, given.votes, given.temperature)
    if given.csv is not None:
        with open(given.csv, "w", encoding="utf-8", newline="") as stream:
            csv.writer(stream).writerows([("image", "score", "mos", "split"), *rows])
    _, scores, mos, split = zip(*rows, strict=True)
    entries, report = calibration.calibrate(scores, mos, split, range=KONIQ_RANGE)
    print(f"{len(rows)} images joined, fitted on {split.count('validation')}, judged on {split.count('test')}")
    print("\n".join(report_lines(report)))
    print("logistic4:", entries["logistic4"]["parameters"])
    print("isotonic:", len(entries["isotonic"]["parameters"][0]), "knots")


if __name__ == "__main__":
    main()
