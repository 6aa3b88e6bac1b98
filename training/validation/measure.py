"""What a model is worth on rows that it is not trained on: score and interpretation, each image looked at once.

The same parts as ``qsit bench``: scores through the engine, correlations of ``evaluation.statistics``, choices of
``evaluation.multiple_choice``. Also works on a model in the middle of its training.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F

from qsit_plugin.engines.level_logits import Reading, iter_readings, to_score
from qsit_plugin.evaluation import multiple_choice
from qsit_plugin.evaluation.figures import LEAST
from qsit_plugin.evaluation.statistics import agreement
from qsit_plugin.protocol import LEVELS, ScoreProfile

from ..data.choices import choice_of
from ..data.rows import TrainingRow, level_in, only_image
from ..data.tokens import RowTokenizer, Tokens

if TYPE_CHECKING:
    from qsit_plugin.model import Look, QSiT

ANSWERS = {"letter": "letters", "generate": "string"}
"""How choices are read, and the name of the rule in ``evaluation.multiple_choice``."""
GROUP_ROWS, MOST_GROUPS = 5, 40
"""Rows that a group needs to have figures of its own, in a file with two or more such groups; more groups than these
are scenes, whose figures nobody would read."""
LEVEL_VALUES = (1.0, 0.75, 0.5, 0.25, 0.0)


@dataclass(frozen=True)
class Figures:
    """What ``validate`` found. A figure that is not defined on these rows is None.

    - ``srcc``, ``plcc``, ``krcc`` in [-1, 1], ``plcc_logistic4``: agreement with the ratings, higher is better for both
      whatever the direction of the scale. Ratings of several sources are on different scales: then each is the mean
      over the sources that have it (``by_source``). ``by_group``: SRCC of each group.
    - ``score_loss``, ``interpret_loss``: cross entropy in nats, of the level word and of the answers' tokens.
    - ``accuracy`` of choices, ``accuracy_by_kind`` (yes-no, what, how), ``chance``: what guessing would get.
    - ``level_mass``: mean probability of the five level words. ``confusion``: 5 x 5 counts from excellent to bad, a row
      for each true level, a column for each that was predicted.
    - ``counts``: ``score`` and ``interpret`` rows, ``choices`` among the latter, ``images``.
    """

    srcc: float | None
    plcc: float | None
    krcc: float | None
    plcc_logistic4: float | None
    score_loss: float | None
    interpret_loss: float | None
    accuracy: float | None
    accuracy_by_kind: dict[str, float]
    chance: float | None
    level_mass: float | None
    confusion: list[list[int]] | None
    counts: dict[str, int]
    by_group: dict[str, float] = field(default_factory=dict)
    by_source: dict[str, dict[str, Any]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


@dataclass(frozen=True)
class Rated:
    """A score row beside what the model says."""

    row: TrainingRow
    level: int
    value: float
    predicted: int
    loss: float
    mass: float


@dataclass(frozen=True)
class Answers:
    """What a model said to every row. ``images``: that were looked at, in order. ``losses``: of the conversations.
    ``choices``: multiple-choice questions, answered by ``rule`` of ``evaluation.multiple_choice``."""

    images: tuple[str, ...]
    rated: tuple[Rated, ...]
    losses: tuple[float, ...]
    choices: tuple[multiple_choice.Answered, ...]
    rule: str


def validate(
    model: QSiT,
    rows: Sequence[TrainingRow],
    folder: str | Path,
    *,
    images: int | None = None,
    answers: str = "letter",
) -> Figures:
    """Measure a model on rows.

    Args:
        folder: that the rows' image paths are relative to.
        images: the rows of at most so many images, the first that occur; all by default.
        answers: how choices are answered. "letter": the likeliest letter, in one forward pass. "generate": a written
            answer, read by Q-SiT's lenient rule, as published.

    Scores are asked for in the words of the model's profile; for the ratings see ``targets_of``. Groups are the rows'
    ``group``, else the beginning of the id up to the first "/" ("blur/photo.png"); they have figures of their own where
    at least two have five rating rows each.

    Raises ValueError for no rows, a level that is not known, an unusable choice, and letters that are not one token;
    RowError for a row without an image or with several, and for a wording that the chat template does not render;
    ImageError for an image that cannot be read.
    """
    return figures_of(answer(model, rows, folder, images=images, answers=answers))


def answer(
    model: QSiT,
    rows: Sequence[TrainingRow],
    folder: str | Path,
    *,
    images: int | None = None,
    answers: str = "letter",
) -> Answers:
    """The first half of ``validate``, with its arguments and errors: the model's part."""
    if answers not in ANSWERS:
        raise ValueError(f"no way to answer {answers!r}: give one of {', '.join(ANSWERS)}")
    by_image: dict[str, list[TrainingRow]] = {}
    for row in rows:
        by_image.setdefault(only_image(row), []).append(row)
    chosen = list(by_image.items())[:images]
    if not chosen:
        raise ValueError("there are no rows to validate on")
    rated: list[Rated] = []
    losses: list[float] = []
    answered: list[multiple_choice.Answered] = []
    # images that are only to be scored go through the engine in batches, which is all they need
    only = [(image, asked) for image, asked in chosen if all(row.task == "score" for row in asked)]
    readings = iter_readings(model, (Path(folder) / image for image, _ in only))
    for (_, asked), reading in zip(only, readings, strict=True):
        rated += _rate(model, reading, asked)
    tokenize = RowTokenizer(model.conversation, model.profile, model.stop_ids)
    for image, asked in chosen:
        talks = [row for row in asked if row.task == "interpret"]
        if not talks:
            continue
        look = model.encode(Path(folder) / image)
        if len(talks) < len(asked):
            reading = next(iter_readings(model, [look]))
            rated += _rate(model, reading, [row for row in asked if row.task == "score"])
        for row in talks:
            losses.append(_answer_loss(model, look, tokenize(row)))
            if (question := choice_of(row)) is not None:
                answered.append(multiple_choice.answer_question(look, question, rules=(ANSWERS[answers],)))
    names = tuple(image for image, _ in chosen)
    return Answers(names, tuple(rated), tuple(losses), tuple(answered), ANSWERS[answers])


def figures_of(answers: Answers) -> Figures:
    """The second half of ``validate``."""
    rated, losses, choices = answers.rated, answers.losses, answers.choices
    counts = {"score": len(rated), "interpret": len(losses), "choices": len(choices), "images": len(answers.images)}
    return Figures(
        **_agreement(rated),
        **_levels(rated),
        **_accuracy(choices, answers.rule),
        interpret_loss=_mean(losses),
        by_group=_by_group(rated),
        counts=counts,
    )


# ---- the model ----


def _rate(model: QSiT, reading: Reading, rows: Sequence[TrainingRow]) -> list[Rated]:
    score = to_score(model, reading)
    rated = []
    shares = torch.tensor(reading.logits, dtype=torch.float64).log_softmax(-1)
    # of the whole vocabulary; a mass below the smallest float32 would make the loss infinite
    logs = (shares + math.log(max(min(reading.level_mass, 1.0), 1e-38))).tolist()
    for row in rows:
        level = true_level(row, model.profile)
        target = row.level_probs or tuple(float(i == level) for i in range(len(LEVELS)))
        loss = -sum(share * log for share, log in zip(target, logs, strict=True))
        rated.append(Rated(row, level, score.value, LEVELS.index(score.level), loss, score.level_mass))
    return rated


def true_level(row: TrainingRow, profile: ScoreProfile) -> int:
    """Number of the level that a rating row says, 0 = excellent: in its text, else the likeliest of ``level_probs``.

    Raises ValueError where it has neither.
    """
    said = level_in(row.answer.strip(), profile)
    if said is not None:
        return LEVELS.index(said)
    if row.level_probs is not None:
        return row.level_probs.index(max(row.level_probs))
    raise ValueError(
        f"row {row.id} is a rating without level_probs, and its answer {row.answer.strip()[:60]!r} is not in the "
        f"profile's words ({profile.answer_prefix + profile.level_words[1] + '.'!r}): give the profile that the rows "
        "were written with, or convert them again with qsit train convert --profile"
    )


@torch.inference_mode()
def _answer_loss(model: QSiT, look: Look, tokens: Tokens) -> float:
    """Mean cross entropy of the tokens that a row's answers have, as in training."""
    ids, image = tokens.ids.tolist(), tokens.ids.tolist().index(model.conversation.image_token_id)
    after = ids[image + 1 :]
    states = model.engine.states_after(look.prefix(tuple(ids[:image]), model.engine), after[:-1])
    places = torch.from_numpy(tokens.learned[image + 1 :].nonzero()[0]).to(states.device)
    targets = torch.tensor(after, device=states.device)[places]
    return float(F.cross_entropy(model.engine.logits(states[places - 1]).float(), targets))


# ---- figures ----


def _agreement(rated: Sequence[Rated]) -> dict[str, Any]:
    """Correlations, each the mean over the sources that have it."""
    names = ("srcc", "plcc", "krcc", "plcc_logistic4")
    found = {}
    for source in dict.fromkeys(one.row.source for one in rated):
        members = [one for one in rated if one.row.source == source]
        found[source] = {"n": len(members)}
        if len(members) >= LEAST:
            found[source] = agreement([one.value for one in members], targets_of(members))
    figures = {name: _mean([table[name] for table in found.values() if table.get(name) is not None]) for name in names}
    return figures | {"by_source": found if len(found) > 1 else {}}


def targets_of(rated: Sequence[Rated]) -> np.ndarray:
    """Ratings of one source, higher is better: the rows' ``quality``, else their ``mos`` in the direction of their
    levels (rows of older versions do not say the direction), else the mean of their ``level_probs``."""
    rows, levels = [one.row for one in rated], np.array([LEVEL_VALUES[one.level] for one in rated])
    if all(row.quality is not None for row in rows):
        return np.array([row.quality for row in rows], float)
    if any(row.mos is None for row in rows):
        given = (row.level_probs for row in rows)
        return np.array([np.dot(five, LEVEL_VALUES) if five else levels[i] for i, five in enumerate(given)])
    mos = np.array([row.mos for row in rows], float)
    return -mos if np.dot(mos - mos.mean(), levels - levels.mean()) < 0 else mos


def _group(row: TrainingRow) -> str | None:
    """The row's ``group``; of rows of older versions the beginning of the id."""
    name, separator, _ = row.id.partition("/")
    return row.group or (name if separator else None)


def _by_group(rated: Sequence[Rated]) -> dict[str, float]:
    groups: dict[str, list[Rated]] = {}
    for one in rated:
        if (name := _group(one.row)) is not None:
            groups.setdefault(name, []).append(one)
    large = {name: members for name, members in groups.items() if len(members) >= GROUP_ROWS}
    if not 2 <= len(large) <= MOST_GROUPS:
        return {}
    tables = {name: _agreement(members)["srcc"] for name, members in large.items()}
    return {name: value for name, value in sorted(tables.items()) if value is not None}


def _levels(rated: Sequence[Rated]) -> dict[str, Any]:
    if not rated:
        return {"score_loss": None, "level_mass": None, "confusion": None}
    confusion = [[0] * len(LEVELS) for _ in LEVELS]
    for one in rated:
        confusion[one.level][one.predicted] += 1
    return {
        "score_loss": _mean([one.loss for one in rated]),
        "level_mass": _mean([one.mass for one in rated]),
        "confusion": confusion,
    }


def _accuracy(answered: Sequence[multiple_choice.Answered], rule: str) -> dict[str, Any]:
    if not answered:
        return {"accuracy": None, "chance": None, "accuracy_by_kind": {}}
    table = multiple_choice.accuracy(answered, (rule,))
    return {
        "accuracy": table["overall"][rule],
        "chance": table["overall"]["chance"],
        "accuracy_by_kind": {kind: group[rule] for kind, group in table["types"].items()},
    }


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if len(values) else None
