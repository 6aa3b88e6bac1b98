"""A small dataset in the form of ``qsit train``, from photos under synthetic distortions: what the balance of scoring
and interpreting is demonstrated on, and a way to try fine-tuning without any download but photos.

    python -m qsit_plugin.training.synthetic.rows --photos FOLDER --out data --images 3000 --validation 300

Writes ``data/images``, and ``scoring.jsonl`` (ratings), ``quality.jsonl`` (questions about quality) and
``general.jsonl`` (questions about anything else) with one row an image each, after the three kinds of data that Q-SiT
was trained on; ``validation.jsonl`` with ratings and multiple-choice questions about photos that are held out.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from qsit_plugin.training.data.rows import TrainingRow, write_rows
from qsit_plugin.training.levels import LevelScale

from . import photos, text
from .distortions import Defect, severity_score

SIDE = 128
"""One tile: the smallest image that costs the model nothing to enlarge."""

SCALE = LevelScale.custom(1.0, 5.0)
SPREAD = 0.4
"""Standard deviation of a rating, as if people had given it."""

COLORS = ("red", "yellow", "green", "cyan", "blue", "magenta")


def dataset(
    folder: str | Path, out: str | Path, images: int, validation: int, seed: int = 0
) -> dict[str, list[TrainingRow]]:
    """Write everything; the rows by file name. Raises FileNotFoundError and ValueError for photos that will not do."""
    place = Path(out)
    (place / "images").mkdir(parents=True, exist_ok=True)
    train, held = photos.load_split(folder)
    if not train or not held:
        raise ValueError(
            f"{folder} has {len(train) + len(held)} photos, of which one in eight is held out: give some dozens"
        )
    if small := [photo.size for photo in train + held if min(photo.size) < SIDE]:
        raise ValueError(f"{len(small)} photos below {folder} have fewer than {SIDE} pixels a side: take them out")
    files: dict[str, list[TrainingRow]] = {"scoring": [], "quality": [], "general": [], "validation": []}
    for number in range(images + validation):
        rng, checked = np.random.default_rng([seed, number]), number >= images
        photo = text.pick(held if checked else train, rng)
        region = photos.crop_with_content(photo, SIDE, SIDE, rng, tries=6)
        plan = photos.pick_pair(region, rng, {}, clean=0.1)[int(rng.integers(2))]
        name = f"{number:06d}.png"
        photos.apply(region, plan, int(rng.integers(2**31))).save(place / "images" / name)
        for row in rows_of(name, region, photos.defects_of(plan, 1.0), rng, choices=checked):
            if not checked:
                files[row.source].append(row)
            elif row.source != "general":
                files["validation"].append(row)
    for source, rows in files.items():
        write_rows(place / f"{source}.jsonl", rows)
    return files


def rows_of(
    name: str, clean: Image.Image, defects: tuple[Defect, ...], rng: np.random.Generator, *, choices: bool
) -> Iterator[TrainingRow]:
    """The rating, the question about quality and the general one of an image that is stored as ``name``.

    ``choices``: every question about quality is a multiple-choice question, as Q-Bench's are.
    """
    score = severity_score(defects)
    named = [defect for defect in defects if defect.visible > text.HARDLY]
    quality = text.naming_turn(named, rng)
    if not choices and (kind := rng.random()) < 0.6:
        quality = text.yes_no_turn(named, rng) if kind < 0.3 else text.describe_turn(named, score, rng)
    identity = f"{defects[0].name if defects else 'clean'}/{name.removesuffix('.png')}"
    split = "validation" if choices else "training"
    yield TrainingRow(
        id=f"{identity}->{score:.3f}",
        image=name,
        task="score",
        messages=messages(text.PROFILE_QUESTION, f"{text.PROFILE_PREFIX} {SCALE.level(score)}."),
        mos=score,
        level_probs=SCALE.soft(score, sd=SPREAD),
        source="scoring",
        split=split,
        quality=SCALE.score(score),
        group=identity.partition("/")[0],
    )
    for source, turn in (("quality", quality), ("general", general_turn(clean, rng))):
        turns = messages(turn.question, turn.answer)
        yield TrainingRow(f"{identity}#{source}", name, "interpret", turns, source=source, split=split)


def general_turn(clean: Image.Image, rng: np.random.Generator) -> text.Turn:
    """A question about the content, answered from the clean image: its main color, or its brightest side."""
    if rng.random() < 0.5:
        hue, saturation, _ = np.asarray(clean.convert("HSV"), float).reshape(-1, 3).T
        sectors = np.rint(hue / 256 * len(COLORS)).astype(int) % len(COLORS)
        weights = np.bincount(sectors, weights=saturation, minlength=len(COLORS))
        return text.multiple_choice_turn("Which color is the main one of this image?", COLORS, int(weights.argmax()))
    grey, half = np.asarray(clean.convert("L"), float), SIDE // 2
    sides = {"left": grey[:, :half], "right": grey[:, half:], "top": grey[:half], "bottom": grey[half:]}
    brightest = int(np.argmax([side.mean() for side in sides.values()]))
    return text.multiple_choice_turn("Which side of this image is the brightest?", list(sides), brightest)


def messages(question: str, answer: str) -> list[dict[str, Any]]:
    return [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]},
        {"role": "assistant", "content": [{"type": "text", "text": answer}]},
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", required=True, help="folder of clean photos")
    parser.add_argument("--out", required=True, help="folder to write")
    parser.add_argument("--images", type=int, default=3000)
    parser.add_argument("--validation", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    try:
        files = dataset(args.photos, args.out, args.images, args.validation, args.seed)
    except (FileNotFoundError, ValueError) as error:
        raise SystemExit(str(error)) from None
    print(", ".join(f"{name}.jsonl {len(rows):,}" for name, rows in files.items()))


if __name__ == "__main__":
    main()
