"""The rows of the experiment: people's ratings, and questions about photos that were distorted in known ways.

Scoring is taught by ratings of BIQ2021 alone. Nobody asked people questions about these photos, so interpreting is
taught by what is known for certain: photos that people rate high are distorted, and asked about. Both are whole photos
of 512 x 512, so that no task is known by the size of its images.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from qsit_plugin.evaluation.datasets.biq2021 import scene_of
from qsit_plugin.training.data.rows import TrainingRow, write_rows
from qsit_plugin.training.levels import LevelScale
from qsit_plugin.training.nano.human.crops import GOOD
from qsit_plugin.training.nano.human.rated import Rated, has_size, read, read_and_cut
from qsit_plugin.training.nano.human.readout import drawn
from qsit_plugin.training.synthetic import photos, text, vocabulary
from qsit_plugin.training.synthetic.distortions import Defect
from qsit_plugin.training.synthetic.rows import SIDE as SMALL
from qsit_plugin.training.synthetic.rows import messages, rows_of

SIDE = 512
"""Of the photos; twelve of BIQ2021 have another size and are left out."""

CLEAN = 0.1
"""Share of the pairs of distortions of which one is none."""


@dataclass(frozen=True)
class Sizes:
    """How much of everything there is."""

    ratings: int = 6000
    """Training photos with their ratings."""
    images: int = 3000
    """Distorted photos to train on, each with one question about quality and a general one."""
    asked: int = 300
    """Distorted photos that nothing is trained on, each with a choice, two yes/no questions and a description."""
    held: int | None = None
    """Validation ratings of each database at most; all by default."""
    searched: int = 150
    """Of these, in each subset, how many the search looks at; and so many choices twice over."""
    samples: int = 5120
    """Rows that an arm is trained on."""
    clean: int = 400
    """Photos from which the language models learn before the arms begin."""
    language: int = 2000
    """Steps of the language stage; see training/nano."""
    views: int = 12_000
    evidence: int = 600
    projector: int = 200
    """Of the evidence stage."""


THIN = Sizes(6, 6, 3, 4, 3, 48, 8, 2, 64, 2, 1)
"""To see in minutes that everything runs; its figures mean nothing."""


def linked(images: Path, name: str, folder: Path) -> None:
    """``images/name`` leads to a database's folder: the rows of a run name images below one folder."""
    images.mkdir(parents=True, exist_ok=True)
    place = images / name
    if not place.exists():
        place.symlink_to(folder.resolve(), target_is_directory=True)
    elif place.resolve() != folder.resolve():
        raise SystemExit(f"{place} leads to {place.resolve()}, not to {folder}: give the folder as before, or --work")


def rating_rows(rated: Sequence[Rated], folder: Path, link: str, scale: LevelScale) -> list[TrainingRow]:
    """A rating each; images lie below ``link``, as they do below ``folder``."""
    rows = []
    for photo in rated:
        level = scale.level(photo.mos)
        if level is None:
            raise ValueError(f"{photo.path.name} is rated {photo.mos:g}, which is off the scale of {scale.name}")
        rows.append(
            TrainingRow(
                id=f"{photo.path.name}->{photo.mos:g}",
                image=f"{link}/{photo.path.relative_to(folder).as_posix()}",
                task="score",
                messages=messages(text.PROFILE_QUESTION, f"{text.PROFILE_PREFIX} {level}."),
                mos=photo.mos,
                level_probs=scale.soft(photo.mos),
                source=photo.subset or scale.name,
                split=photo.part,
                quality=scale.score(photo.mos),
                group=scene_of(photo.path.name),
            )
        )
    return rows


@dataclass(frozen=True)
class Distorted:
    """A photo that something was done to. ``image``: below the folder of images; ``defects``: those that can be seen
    well enough to be named, the more harmful first."""

    image: str
    clean: Image.Image
    defects: tuple[Defect, ...]
    rng: np.random.Generator

    @property
    def named(self) -> tuple[Defect, ...]:
        return tuple(defect for defect in self.defects if defect.visible > text.HARDLY)


def distorted(clean: Sequence[Rated], images: Path, kind: str, count: int, seed: int) -> Iterator[Distorted]:
    """``count`` photos under distortions, written as ``images/kind/000000.png``; those that are there stay."""
    (images / kind).mkdir(parents=True, exist_ok=True)
    if not clean and count:
        raise ValueError(f"no photo of the {kind} part is rated {GOOD:g} or higher: there is nothing to distort")
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        with Image.open(text.pick(clean, rng).path) as stored:
            photo = stored.convert("RGB")
        plan = photos.pick_pair(photo, rng, {}, CLEAN)[int(rng.integers(2))]
        path, noise = images / kind / f"{number:06d}.png", int(rng.integers(2**31))
        if not path.exists():
            partly = path.with_suffix(".part")
            photos.apply(photo, plan, noise).save(partly, "png", compress_level=1)
            partly.replace(path)
        yield Distorted(f"{kind}/{path.name}", photo, photos.defects_of(plan, 1.0), rng)


def taught_rows(views: Iterator[Distorted]) -> dict[str, list[TrainingRow]]:
    """A question about quality and a general one of every photo, as ``synthetic.rows`` makes them."""
    files: dict[str, list[TrainingRow]] = {"quality": [], "general": []}
    for view in views:
        small = view.clean.resize((SMALL, SMALL), Image.Resampling.BOX)  # what it asks of the content needs no more
        for row in rows_of(view.image, small, view.defects, view.rng, choices=False):
            if row.source in files:
                files[row.source].append(row)
    return files


def asked_rows(views: Iterator[Distorted]) -> tuple[list[TrainingRow], list[dict[str, Any]]]:
    """The choices as rows, and of every photo the other questions: ``image``, ``names`` of what is there, ``yes`` (None
    where nothing is there), ``no`` and ``describe``."""
    choices, others = [], []
    for view in views:
        turn, names = text.naming_turn(view.named, view.rng), [defect.name for defect in view.named]
        identity = f"{names[0] if names else 'clean'}/{view.image}"
        turns = messages(turn.question, turn.answer)
        choices.append(TrainingRow(identity, view.image, "interpret", turns, source="choices", split="validation"))
        others.append(
            {
                "image": view.image,
                "names": names,
                "yes": text.whether(names[0], view.rng) if names else None,
                "no": text.whether(text.pick(text.askable(view.named), view.rng), view.rng),
                "describe": vocabulary.DESCRIBE[0],
            }
        )
    return choices, others


def whole_photos(rated: Path, part: str, thumbnails: Path) -> list[Rated]:
    """The photos of a part of BIQ2021 in the order of the hashes of their names; of the test part all, since a figure
    of it without twins is taken afterwards."""
    of_part = [photo for photo in read_and_cut(rated, thumbnails) if photo.part == part and has_size(photo.path, SIDE)]
    return drawn(of_part, len(of_part))


def write_training(rated: Path, work: Path, sizes: Sizes) -> None:
    """``work/rows``: scoring.jsonl, quality.jsonl and general.jsonl; ``work/clean``: photos for the language models."""
    training = whole_photos(rated, "training", work / "thumbnails.npz")
    good = [photo for photo in training if photo.mos >= GOOD]
    scale = LevelScale.named("biq2021")
    files = {"scoring": rating_rows(training[: sizes.ratings], rated, "rated", scale)}
    files |= taught_rows(distorted(good, work / "images", "training", sizes.images, seed=1))
    (work / "rows").mkdir(exist_ok=True)
    for name, rows in files.items():
        write_rows(work / "rows" / f"{name}.jsonl", rows)
    (work / "clean").mkdir(exist_ok=True)
    for photo in good[: sizes.clean]:
        if not (place := work / "clean" / photo.path.name).exists():
            place.symlink_to(photo.path.resolve())


def write_asked(rated: Path, unseen: Path, work: Path, part: str, sizes: Sizes) -> None:
    """``work/PART``: a file of ratings for each subset of BIQ2021, livec.jsonl, choices.jsonl and asked.jsonl."""
    mine = whole_photos(rated, part, work / "thumbnails.npz")
    away = [photo for photo in read(unseen) if photo.part == part]
    if not mine or not away:
        raise ValueError(f"there are {len(mine)} photos of the {part} part in {rated}, {len(away)} in {unseen}")
    (work / part).mkdir(exist_ok=True)
    for subset in sorted({photo.subset for photo in mine}):
        some = [photo for photo in mine if photo.subset == subset][: sizes.held]
        write_rows(work / part / f"{subset}.jsonl", rating_rows(some, rated, "rated", LevelScale.named("biq2021")))
    some = drawn(away, len(away))[: sizes.held]
    write_rows(work / part / "livec.jsonl", rating_rows(some, unseen, "unseen", LevelScale.named("livec")))
    good = [photo for photo in mine if photo.mos >= GOOD and not photo.twin]
    seed = {"validation": 2, "test": 3}[part]
    choices, others = asked_rows(distorted(good, work / "images", part, sizes.asked, seed))
    write_rows(work / part / "choices.jsonl", choices)
    lines = [json.dumps(row, ensure_ascii=False) for row in others]
    (work / part / "asked.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
