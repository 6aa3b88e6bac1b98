"""What a nano is worth, on photos that it never saw, through the public interface.

- Ladder correlation: one photo, clean and at five rising strengths of one distortion: Spearman's correlation of score
  against step, sign turned; a constant ladder counts 0. Mean over photos, then over distortions.
- Naming: the right name, chosen at the three strongest steps; one of the ten among the ten, another among eight.
- Pooled: Spearman's correlation of score with the recipe's severity score over all views, two combined ones a photo
  included.
- Yes/no: whether a distortion is there, asked freely, as often of one that is there as of one that is not.
- Order: the share of photos whose ladder is in order without a mistake, see order.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from json import dumps
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..synthetic.distortions import KINDS, NAMES, NEEDS_COLOR, Defect, distort, severity_score
from ..synthetic.photos import apply, defects_of, find, is_colorful, load, split
from ..synthetic.text import askable, whether
from ..synthetic.vocabulary import NAMING
from . import order

STRENGTHS = (0.2, 0.4, 0.6, 0.8, 1.0)
OPTIONS = 8


def ladder(photo: Image.Image, name: str, seed: int) -> list[Image.Image]:
    """The clean photo and five rising strengths of one rendering of a distortion."""
    return [photo] + [distort(photo, name, s, np.random.default_rng(seed)) for s in STRENGTHS]


def rank_correlation(a: Sequence[float], b: Sequence[float]) -> float:
    """Spearman's correlation with mean ranks for ties; 0 where one side is constant."""
    from scipy.stats import rankdata

    x, y = (ranks - ranks.mean() for ranks in (rankdata(a), rankdata(b)))
    norm = float(np.sqrt((x**2).sum() * (y**2).sum()))
    return float((x * y).sum()) / norm if norm > 0 else 0.0


@dataclass
class Pool:
    """What was scored, over all photos and distortions."""

    values: list[float] = field(default_factory=list)
    severities: list[float] = field(default_factory=list)
    masses: list[float] = field(default_factory=list)

    def add(self, score: Any, defects: tuple[Defect, ...]) -> float:
        self.values.append(score.value)
        self.severities.append(severity_score(defects))
        self.masses.append(score.level_mass)
        return score.value


def shown_scale(model: Any, size: tuple[int, int]) -> float:
    """Pixels of the model's view per pixel of a photo, at most 1."""
    tiling = model.engine.tiling
    rows, columns = tiling.grid(*size)
    return min(1.0, columns * tiling.tile / size[0], rows * tiling.tile / size[1])


def evaluate(model: Any, images: Sequence[Image.Image], seed: int = 0, kinds: Iterable[str] = KINDS) -> dict[str, Any]:
    """Figures of a ``QSiT`` on clean photos."""
    table: dict[str, dict[str, float]] = {}
    pool, answers = Pool(), list[bool]()
    for name in kinds:
        ladders, named, asked = [], [], []
        for number, photo in enumerate(images):
            if name in NEEDS_COLOR and not is_colorful(photo):
                continue
            rng = np.random.default_rng([seed, number, KINDS.index(name)])
            looks = [model.encode(step) for step in ladder(photo, name, seed * 1000 + number)]
            plans = [()] + [((name, s),) for s in STRENGTHS]
            scale = shown_scale(model, photo.size)
            values = [pool.add(v.score(), defects_of(p, scale)) for v, p in zip(looks, plans, strict=True)]
            ladders.append(-rank_correlation(values, range(len(values))))
            named += [_named(model, look, name, rng) for look in looks[3:]]
            asked += _answers(looks[int(rng.integers(2, 6))], name, rng)
        table[name] = {
            "ladder": float(np.mean(ladders)),
            "named": float(np.mean(named)),
            "yes_no": float(np.mean(asked)),
            "photos": len(ladders),
        }
        answers += asked
        print(_line(name, table[name]), flush=True)
    add_combined(model, images, pool, seed)
    ten = [table[name] for name in NAMES if name in table]
    figures: dict[str, Any] = {
        "mean": {key: float(np.mean([row[key] for row in ten])) for key in ("ladder", "named", "yes_no")},
        "per_distortion": table,
        "pooled": {"srcc": rank_correlation(pool.values, pool.severities), "views": len(pool.values)},
        "yes_no": {"accuracy": float(np.mean(answers)), "questions": len(answers)},
        "level_mass": {"mean": float(np.mean(pool.masses)), "lowest": float(np.min(pool.masses))},
        "order": order.without_mistake(model, images),
        "photos": len(images),
        "seed": seed,
    }
    print(_line("mean of the ten", figures["mean"]), flush=True)
    print(f"pooled {figures['pooled']} yes/no {figures['yes_no']} order {figures['order']}", flush=True)
    return figures


def _line(name: str, row: dict[str, float]) -> str:
    return f"{name:24s} ladder {row['ladder']:.3f}  named {row['named']:.3f}  yes/no {row['yes_no']:.3f}"


def _named(model: Any, look: Any, name: str, rng: np.random.Generator) -> bool:
    options = list(NAMES)
    if name not in NAMES:
        options = [name, *rng.permutation([n for n in KINDS if n != name])[: OPTIONS - 1].tolist()]
        rng.shuffle(options)
    return options[int(np.argmax(model.choose(look, NAMING[0], options)))] == name


def _answers(look: Any, name: str, rng: np.random.Generator) -> list[bool]:
    """Whether two free answers are right: about the distortion that is there, and about one that is not."""
    absent = askable([Defect(name, 0.5)])
    there = look.ask(whether(name, rng), max_new_tokens=12).text
    other = look.ask(whether(absent[int(rng.integers(len(absent)))], rng), max_new_tokens=12).text
    return [there.startswith("Yes"), other.startswith("No")]


def add_combined(model: Any, images: Sequence[Image.Image], pool: Pool, seed: int) -> None:
    """Two views a photo under two distortions each."""
    for number, photo in enumerate(images):
        rng = np.random.default_rng([seed, number, 99])
        for _ in range(2):
            first, second = rng.choice([n for n in KINDS if n not in NEEDS_COLOR], size=2, replace=False)
            plan = ((str(first), float(rng.random())), (str(second), float(rng.random())))
            image = apply(photo, plan, int(rng.integers(2**31)))
            pool.add(model.score(image), defects_of(plan, shown_scale(model, photo.size)))


def measure(
    photos: Path,
    checkpoint: str = "qsit-nano",
    json: Path | None = None,
    seed: int = 0,
    limit: int | None = None,
    all: bool = False,
) -> None:
    """Figures of a checkpoint on the held-out photos of a folder, the first ``limit`` of them; on ``all`` of a folder
    that was never trained on."""
    import qsit_plugin

    files = find(photos)
    files = files if all else split(files)[1]
    figures = evaluate(qsit_plugin.load(checkpoint), load(files[:limit]), seed)
    if json:
        json.write_text(dumps(figures, indent=2) + "\n", encoding="utf-8")
