"""What ``max_tiles`` and ``max_image_tokens`` save, and how far scores drift from the released ones.

    python benchmarks/fast_tier.py PHOTOS --tiles 16 9 4 1 --tokens 500 300
    python benchmarks/fast_tier.py PHOTOS --model qsit-mini --device cuda --tokens 3000 1485

Every image of the folder is scored without limits and with each limit in turn, one image at a time, so that all meet
the same load; reading the file counts. Speed is the ratio of processor time on a CPU (where other programs do not
count) and of the clock elsewhere. SRCC is the rank correlation between the scores with the limit and those without: it
says whether the order is kept, not whether either order is people's. "Smaller" is the share of images that get another
grid than without the limit.
"""

from __future__ import annotations

import argparse
import platform
import time
from datetime import date
from pathlib import Path

import numpy as np
import torch
from scipy.stats import spearmanr

import qsit_plugin
from qsit_plugin.cli.inputs import read

HEAD = "| limit | images/s against released | smaller | mean tiles | mean tokens | mean drift | largest | SRCC |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="folder of images")
    parser.add_argument("--model", default="qsit-nano")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--tiles", type=int, nargs="*", default=[], help="values of max_tiles")
    parser.add_argument("--tokens", type=int, nargs="*", default=[], help="values of max_image_tokens")
    given = parser.parse_args()
    limits = [{"max_tiles": n} for n in given.tiles] + [{"max_image_tokens": n} for n in given.tokens]
    paths = [path for path in read([str(given.folder)]) if isinstance(path, Path)]
    if not limits or len(paths) < 3:
        parser.error("give --tiles or --tokens, and a folder of at least three images")
    models = [qsit_plugin.load(given.model, engine="torch", device=given.device, **limit) for limit in ({}, *limits)]
    print(about(models[0], paths), HEAD, "|---|" + "---:|" * 7, sep="\n")
    print(*rows(models, *measured(models, paths)), sep="\n")


def measured(models: list, paths: list[Path]) -> tuple[np.ndarray, np.ndarray, list[tuple[int, int]]]:
    """Scores and seconds, (models, images), and the images' sizes."""
    clock = time.process_time if models[0].device.type == "cpu" else time.perf_counter
    values, seconds, sizes = np.zeros((len(models), len(paths))), np.zeros((len(models), len(paths))), []
    for model in models:
        model.score(paths[0])  # the first pass of a model prepares much
    for column, path in enumerate(paths):
        for row in np.roll(np.arange(len(models)), column):  # nobody is always first
            begun = clock()
            score = models[row].score(path)
            seconds[row, column] = clock() - begun
            values[row, column] = score.value
        sizes.append((score.width, score.height))
    return values, seconds, sizes


def rows(models: list, values: np.ndarray, seconds: np.ndarray, sizes: list[tuple[int, int]]) -> list[str]:
    """Markdown rows, the released procedure first."""
    plain, lines = models[0].engine.tiling, []
    for model, own, spent in zip(models, values, seconds, strict=True):
        tiling = model.engine.tiling
        tiles, tokens = (np.mean([count(*size) for size in sizes]) for count in (tiling.tile_count, tiling.token_count))
        smaller = np.mean([tiling.canvas(*size) != plain.canvas(*size) for size in sizes])
        drift, name = np.abs(own - values[0]), ", ".join(model.departures()) or "none (released)"
        cells = [name, f"{seconds[0].sum() / spent.sum():.2f}", f"{smaller:.0%}", f"{tiles:.1f}", f"{tokens:.0f}"]
        cells += [f"{drift.mean():.3f}", f"{drift.max():.3f}", f"{spearmanr(own, values[0])[0]:.3f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def about(model: qsit_plugin.QSiT, paths: list[Path]) -> str:
    dtype = str(model.dtype).removeprefix("torch.")
    where = f"{model.name} on {model.device} ({platform.machine()}, {torch.get_num_threads()} threads), {dtype}"
    return f"{len(paths)} images, {where}, torch {torch.__version__}, {date.today()}\n"


if __name__ == "__main__":
    main()
