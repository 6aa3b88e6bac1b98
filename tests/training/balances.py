"""Small sources of data, rows to validate on, and the settings of a search; shared by the tests of the balance."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import yaml

from qsit_plugin.training.data.rows import TrainingRow, write_rows
from tests.training.runs import Data, rating

KINDS = ("noise", "blur", "banding")
SEARCH = {
    "run": "light.yaml",
    "output": "found",
    "validation": "held.jsonl",
    "samples": 6,
    "seeds": [0, 1],
    "grid": [0, 0.22, 0.5, 1],
    "quality_grid": [0, 0.3, 0.6, 1],
}


def question(number: int, image: str, source: str = "quality") -> TrainingRow:
    """A choice of three with its letter as the answer."""
    text = "Which distortion is most visible in this image?\n" + "\n".join(
        f"{letter}. {kind}" for letter, kind in zip("ABC", KINDS, strict=True)
    )
    messages = [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": text}]},
        {"role": "assistant", "content": [{"type": "text", "text": "ABC"[number % 3] + "."}]},
    ]
    return TrainingRow(f"{source}-{number}", image, "interpret", messages, source=source)


def talk(number: int, image: str) -> TrainingRow:
    messages = [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is in this image?"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "The image is sharp and noisy."}]},
    ]
    return TrainingRow(f"general-{number}", image, "interpret", messages, source="general")


def make_search(folder: Path, tuning: Data, *, general: bool = True, **changes: object) -> Path:
    """Write data and settings into a folder; the settings' path. ``changes`` over ``SEARCH``."""
    rng = np.random.default_rng(1)
    pictures = [f"{number}.png" for number in range(5)]
    write_rows(folder / "mos.jsonl", [rating(p, float(rng.uniform(0, 100)), tuning.profile) for p in pictures * 2])
    write_rows(folder / "quality.jsonl", [question(number, pictures[number % 5]) for number in range(9)])
    files = ["mos.jsonl", "quality.jsonl"]
    if general:
        write_rows(folder / "general.jsonl", [talk(number, pictures[number % 5]) for number in range(4)])
        files.append("general.jsonl")
    write_rows(folder / "held.jsonl", [row for row in tuning.rows if row.task == "score"] + [question(2, "1.png")])
    write_yaml(folder / "data.yaml", {"datasets": [{"json_path": file} for file in files]})
    run = tuning.config(folder / "out", data=str(folder / "data.yaml"), save_every=1, log_every=100)
    write_yaml(folder / "light.yaml", {name: value for name, value in run.to_dict().items() if value is not None})
    return write_yaml(folder / "search.yaml", SEARCH | changes)


def write_yaml(path: Path, content: dict) -> Path:
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return path
