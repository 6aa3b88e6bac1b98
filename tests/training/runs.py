"""A tiny checkpoint and a few rated pictures to fine-tune it on; shared by the tests of fine-tuning."""

from __future__ import annotations

import importlib.metadata
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from packaging.version import Version
from PIL import Image

pytest.importorskip("pydantic", reason="pydantic checks the settings of a run")

from qsit_plugin.protocol import ScoreProfile  # noqa: E402
from qsit_plugin.training.config import RunConfig  # noqa: E402
from qsit_plugin.training.data.rows import TrainingRow, score_messages, write_rows  # noqa: E402
from qsit_plugin.training.levels import LevelScale  # noqa: E402
from tests.tiny import tiny_checkpoint  # noqa: E402

SCALE = LevelScale.custom(0, 100)
RATINGS = (95.0, 75.0, 50.0, 30.0, 5.0)
SIZES = ((90, 60), (128, 128), (40, 100), (150, 90), (64, 64))


def require_training() -> None:
    """Skip, with the reason, where fine-tuning cannot run."""
    for name in ("peft", "accelerate", "yaml"):
        pytest.importorskip(name, reason=f"fine-tuning needs {name}")
    found = importlib.metadata.version("transformers")
    if Version(found) < Version("5.18"):
        pytest.skip(f"fine-tuning needs transformers 5.18 or later, this is {found}", allow_module_level=True)


@dataclass(frozen=True)
class Data:
    """``folder`` holds base/, pictures 0.png to 4.png and rows.jsonl: five ratings and a conversation of two turns."""

    folder: Path
    base: Path
    profile: ScoreProfile
    rows: tuple[TrainingRow, ...]

    @property
    def pictures(self) -> list[Path]:
        return [self.folder / f"{number}.png" for number in range(len(RATINGS))]

    def config(self, output: Path, **changes: Any) -> RunConfig:
        """A run of a few seconds; ``changes`` over it."""
        settings: dict[str, Any] = {
            "base": str(self.base),
            "data": str(self.folder / "rows.jsonl"),
            "images": str(self.folder),
            "output": str(output),
            "method": "full",
            "batch_size": 3,
            "learning_rate": 3e-3,
            "vision_learning_rate": 1e-3,
            "schedule": "constant",
            "warmup": 0,
            "gradient_checkpointing": False,
            "memory_probe": False,
            "device": "cpu",
            "workers": 0,
            "log_every": 1,
        }
        return RunConfig(**settings | changes)


def make_data(folder: Path) -> Data:
    base = tiny_checkpoint(folder / "base", official=False)
    profile = ScoreProfile.load(base)
    rng = np.random.default_rng(0)
    rows = []
    for number, (mos, (width, height)) in enumerate(zip(RATINGS, SIZES, strict=True)):
        pixels = rng.integers(0, 256, (height, width, 3)) // (number + 1)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number}.png")
        rows.append(rating(f"{number}.png", mos, profile))
    rows.append(talk())
    write_rows(folder / "rows.jsonl", rows)
    return Data(folder, base, profile, tuple(rows))


def rating(image: str, mos: float, profile: ScoreProfile, source: str = "mine") -> TrainingRow:
    messages = score_messages(SCALE.level(mos) or "", profile)
    return TrainingRow(f"{image}->{mos}", image, "score", messages, mos, SCALE.soft(mos), source)


def talk() -> TrainingRow:
    texts = ("Is it noisy?", "It is noisy.", "And sharp?", "It is not sharp.")
    messages = [
        {"role": ("user", "assistant")[number % 2], "content": [{"type": "text", "text": text}]}
        for number, text in enumerate(texts)
    ]
    messages[0]["content"].append({"type": "image"})
    return TrainingRow("talk", "0.png", "interpret", messages, source="talk")


def rows_read(dataset) -> list[int]:
    """A list that grows by the index of every row that is read from now on, in this process."""
    seen: list[int] = []
    kind = type(dataset)

    class Watched(kind):
        def __getitem__(self, index: int):
            seen.append(index)
            return super().__getitem__(index)

    dataset.__class__ = Watched
    return seen
