"""Does a nano's score follow full-reference metrics, which compare an image with its clean original?

    python -m qsit_plugin.training.nano.fidelity --photos FOLDER --checkpoint nano --json fidelity.json

FSIM, MS-SSIM, VIF and GMSD of pyiqa (they have no weights to download), on held-out photos under blur, noise,
compression artifacts and pixelation at five strengths: Spearman's correlation of score and metric, pooled over photos
and strengths, once for each distortion and once over the four.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from ..synthetic import photos
from .evaluate import ladder, rank_correlation

METRICS = {"fsim": 1, "ms_ssim": 1, "vif": 1, "gmsd": -1}
"""pyiqa's names; -1 where lower is better."""

KINDS = ("blur", "noise", "compression artifacts", "pixelation")


def tensor(image: Image.Image) -> torch.Tensor:
    """(1, 3, H, W) in [0, 1]."""
    pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
    return pixels.view(1, image.height, image.width, 3).permute(0, 3, 1, 2).float() / 255


def fidelity(model: Any, images: Sequence[Image.Image], seed: int = 0) -> dict[str, dict[str, float]]:
    """Correlations by metric, and in it by distortion and over "all"; higher is better throughout."""
    import pyiqa

    metrics = {name: pyiqa.create_metric(name, device="cpu") for name in METRICS}
    scores: dict[str, list[float]] = {kind: [] for kind in KINDS}
    values: dict[str, dict[str, list[float]]] = {name: {kind: [] for kind in KINDS} for name in METRICS}
    for kind in KINDS:
        for number, photo in enumerate(images):
            clean, *steps = ladder(photo, kind, seed * 1000 + number)
            scores[kind] += [score.value for score in model.score(steps)]
            for name, metric in metrics.items():
                with torch.inference_mode():
                    found = [float(metric(tensor(step), tensor(clean))) for step in steps]
                values[name][kind] += [METRICS[name] * value for value in found]
    table = {}
    for name, kinds in values.items():
        table[name] = {kind: rank_correlation(scores[kind], kinds[kind]) for kind in KINDS}
        table[name]["all"] = rank_correlation(
            [s for kind in KINDS for s in scores[kind]], [v for kind in KINDS for v in kinds[kind]]
        )
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", required=True, help="the folder that was trained on; its held-out photos are used")
    parser.add_argument("--checkpoint", default="qsit-nano")
    parser.add_argument("--limit", type=int, default=None, help="only so many photos")
    parser.add_argument("--json", default=None, help="file for the figures")
    args = parser.parse_args()
    import qsit_plugin

    held = photos.split(photos.find(args.photos))[1]
    table = fidelity(qsit_plugin.load(args.checkpoint), photos.load(held[: args.limit]))
    for name, row in table.items():
        print(f"{name:8s} " + "  ".join(f"{kind} {value:.3f}" for kind, value in row.items()))
    if args.json:
        Path(args.json).write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
