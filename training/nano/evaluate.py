"""What a nano is worth, on photos that it never saw, through the public interface.

- Ladder correlation: one photo, clean and at five rising strengths of one distortion: Spearman's correlation of score
  against step, sign turned; a constant ladder counts 0. Mean over photos, then over distortions.
- Naming: the right name, chosen at the three strongest steps; one of the ten among the ten, another among eight.
- Pooled: Spearman's correlation of score with the recipe's severity score over all views, two combined ones a photo
  included.
- Yes/no: whether a distortion is there, asked freely, as often of one that is there as of one that is not.
- Order: the share of photos whose ladder is in order without a mistake, see LADDERS.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from json import dumps
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFilter

from ..synthetic.detail import encoded
from ..synthetic.distortions import KINDS, NAMES, NEEDS_COLOR, Defect, distort, severity_score
from ..synthetic.photos import Plan, apply, defects_of, find, is_colorful, load, split
from ..synthetic.text import askable, whether
from ..synthetic.vocabulary import NAMING

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


def shown_scale(model: Any, size: tuple[int, int]) -> float:
    """Pixels of the model's view per pixel of a photo, at most 1."""
    tiling = model.engine.tiling
    rows, columns = tiling.grid(*size)
    return min(1.0, columns * tiling.tile / size[0], rows * tiling.tile / size[1])


def evaluate(model: Any, images: Sequence[Image.Image], seed: int = 0, kinds: Iterable[str] = KINDS) -> dict[str, Any]:
    """Figures of a ``QSiT`` on clean photos."""
    table: dict[str, dict[str, float]] = {}
    pool, answers = [], list[bool]()  # (score, severity, level mass) of every view
    for name in kinds:
        ladders, named, asked = [], [], []
        for number, photo in enumerate(images):
            if name in NEEDS_COLOR and not is_colorful(photo):
                continue
            rng = np.random.default_rng([seed, number, KINDS.index(name)])
            looks = [model.encode(step) for step in ladder(photo, name, seed * 1000 + number)]
            plans = [(), *(((name, s),) for s in STRENGTHS)]
            rows = [_row(look.score(), plan, model, photo) for look, plan in zip(looks, plans, strict=True)]
            pool += rows
            ladders.append(-rank_correlation([value for value, *_ in rows], range(len(rows))))
            named += [_named(model, look, name, rng) for look in looks[3:]]
            asked += _answers(looks[int(rng.integers(2, 6))], name, rng)
        means = {key: float(np.mean(row)) for key, row in (("ladder", ladders), ("named", named), ("yes_no", asked))}
        table[name] = means | {"photos": len(ladders)}
        answers += asked
        print(_line(name, table[name]), flush=True)
    pool += combined(model, images, seed)
    values, severities, masses = zip(*pool, strict=True)
    ten = [table[name] for name in NAMES if name in table]
    figures: dict[str, Any] = {
        "mean": {key: float(np.mean([row[key] for row in ten])) for key in ("ladder", "named", "yes_no")},
        "per_distortion": table,
        "pooled": {"srcc": rank_correlation(values, severities), "views": len(values)},
        "yes_no": {"accuracy": float(np.mean(answers)), "questions": len(answers)},
        "level_mass": {"mean": float(np.mean(masses)), "lowest": float(np.min(masses))},
        "order": in_order(model, images),
        "photos": len(images),
        "seed": seed,
    }
    print(_line("mean of the ten", figures["mean"]), flush=True)
    print(f"pooled {figures['pooled']} yes/no {figures['yes_no']} order {figures['order']}", flush=True)
    return figures


def _row(score: Any, plan: Plan, model: Any, photo: Image.Image) -> tuple[float, float, float]:
    """Score, severity and probability of the level words of a view of a photo under a plan."""
    return score.value, severity_score(defects_of(plan, shown_scale(model, photo.size))), score.level_mass


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


def combined(model: Any, images: Sequence[Image.Image], seed: int) -> Iterator[tuple[float, float, float]]:
    """Two views a photo under two distortions each."""
    for number, photo in enumerate(images):
        rng = np.random.default_rng([seed, number, 99])
        for _ in range(2):
            first, second = rng.choice([n for n in KINDS if n not in NEEDS_COLOR], size=2, replace=False)
            plan = ((str(first), float(rng.random())), (str(second), float(rng.random())))
            yield _row(model.score(apply(photo, plan, int(rng.integers(2**31)))), plan, model, photo)


def blurred(photo: Image.Image, sigma: float) -> Image.Image:
    return photo.filter(ImageFilter.GaussianBlur(sigma))


def noisy(photo: Image.Image, sigma: float) -> Image.Image:
    """Gaussian noise in grey levels."""
    noise = np.random.default_rng(7).normal(0.0, sigma, (photo.height, photo.width, 3))
    return Image.fromarray((np.asarray(photo) + noise).round().clip(0, 255).astype(np.uint8))


def as_jpeg(photo: Image.Image, quality: float) -> Image.Image:
    return encoded(photo, "JPEG", quality=int(quality))


def exposed(photo: Image.Image, stops: float) -> Image.Image:
    """More or less light: a gain of 2 ** stops in linear light, by the sRGB curve."""
    x = np.asarray(photo, np.float64) / 255
    linear = np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4) * 2.0**stops
    linear = linear.clip(0, 1)
    shown = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return Image.fromarray((shown * 255).round().astype(np.uint8))


LADDERS: dict[str, tuple[Callable[[Image.Image, float], Image.Image], tuple[float, ...]]] = {
    "blur": (blurred, (1.0, 2.0, 4.0, 8.0)),
    "noise": (noisy, (8.0, 16.0, 32.0, 64.0)),
    "JPEG": (as_jpeg, (40, 20, 10, 5)),
    "exposure": (exposed, (-1.5, -3.0, -4.5, -6.0)),
}
"""Operation and rising strengths: blur and noise by sigma (pixels, grey levels), JPEG by quality, exposure by stops."""


def in_order(model: Any, images: Sequence[Image.Image]) -> dict[str, float]:
    """Share of the photos whose scores fall at every one of the four steps from the clean photo on."""
    shares = {}
    for name, (change, strengths) in LADDERS.items():
        right = []
        for photo in images:
            values = [score.value for score in model.score([photo, *(change(photo, s) for s in strengths)])]
            right.append(all(a > b for a, b in zip(values, values[1:], strict=False)))
        shares[name] = float(np.mean(right))
    return shares


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
