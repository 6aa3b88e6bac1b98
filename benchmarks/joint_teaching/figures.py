"""What an arm is worth on photos that nothing was trained on, with intervals, and the same figures on other weights of
these photos, by which two arms are compared."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from qsit_plugin.evaluation.datasets.ratings import RatedImage
from qsit_plugin.evaluation.figures import LEAST, by_column
from qsit_plugin.training.balance.noise import PSEUDO, WEIGHTINGS, weighted_accuracy, weighted_scoring
from qsit_plugin.training.data.mixture import read_rows
from qsit_plugin.training.nano.human.measure import NOTHING
from qsit_plugin.training.synthetic.distortions import KINDS
from qsit_plugin.training.validation.measure import Rated, answer

if TYPE_CHECKING:
    from qsit_plugin.model import QSiT

UNSEEN = "livec"
QUESTIONS = ("letters", "yes_no", "words")
NAMING_TOKENS = 12
"""Enough for "Yes", "No" and the name that a description begins with."""

RESAMPLES = 1000
ENDS = [2.5, 97.5]
"""Percentiles of a 95% interval."""


def measure(model: QSiT, part: Path, images: Path, twins: Collection[str] = ()) -> dict[str, Any]:
    """Figures of the rows below ``part``, JSON-ready.

    - ``subsets``, ``livec``: n, SRCC and PLCC with intervals (bootstrap, scenes drawn together).
    - ``srcc``: mean within BIQ2021's subsets; ``scoring``: the same of (SRCC + PLCC) / 2, as the paper reports it, and
      ``unseen``: that of LIVE-C.
    - ``letters``: choices by the likeliest letter; ``yes_no``: of free answers about what is there and what is not;
      ``words``: descriptions that name something that is there first, or nothing where nothing is;
      ``interpreting``: the mean of these three.
    - ``chance``: of the three questions. ``draws``: 200 weightings of every figure, equal in all runs.

    Photos in ``twins`` (file names) count in ``official`` alone.
    """
    files = sorted(path for path in part.glob("*.jsonl") if path.stem not in ("choices", "asked"))
    rows = [row for path in [*files, part / "choices.jsonl"] for row in read_rows(path)]
    others = [json.loads(line) for line in (part / "asked.jsonl").read_text(encoding="utf-8").splitlines()]
    answers = answer(model, rows, images)
    mine = [one for one in answers.rated if one.row.source != UNSEEN]
    alone = [one for one in mine if Path(str(one.row.image)).name not in twins]
    away = [one for one in answers.rated if one.row.source == UNSEEN]
    weights = Weights([*(one.row.image for one in answers.rated), *(row["image"] for row in others)])
    rights = asked(model, others, images)
    rights["letters"] = [(one.question.image, one.right(answers.rule)) for one in answers.choices]
    draws = {name: weights.accuracy(rights[name]) for name in QUESTIONS}
    draws["interpreting"] = np.mean([draws[name] for name in QUESTIONS], axis=0)
    draws["scoring"], draws["unseen"] = weights.scoring(alone), weights.scoring(away)
    table, unseen = within(alone), within(away)
    found: dict[str, Any] = {
        "subsets": table["groups"],
        UNSEEN: unseen["groups"].get(UNSEEN, {}),
        "srcc": {"value": table["mean_srcc"], "interval": table["mean_srcc_interval"]},
        "scoring": _figure(_paper(table), draws["scoring"]),
        "unseen": _figure(_paper(unseen), draws["unseen"]),
    }
    means = {name: float(np.mean([right for _, right in rights[name]])) for name in QUESTIONS}
    means["interpreting"] = float(np.mean(list(means.values())))
    found |= {name: _figure(value, draws[name]) for name, value in means.items()}
    if len(alone) < len(mine):
        found["official"] = within(mine) | {"n": len(mine)}
    letters = float(np.mean([1 / len(one.question.options) for one in answers.choices]))
    found["chance"] = {"letters": letters, "yes_no": 0.5, "words": 1 / (len(KINDS) + 1)}
    return found | {"draws": {name: values.round(4).tolist() for name, values in draws.items()}}


def asked(model: QSiT, others: Sequence[dict[str, Any]], images: Path) -> dict[str, list[tuple[str, bool]]]:
    """(image, whether the answer is right) of the questions that are answered in words."""
    found: dict[str, list[tuple[str, bool]]] = {"yes_no": [], "words": []}
    for row in others:
        look = model.encode(images / row["image"])
        for question, right in ((row["yes"], "Yes"), (row["no"], "No")):
            if question is not None:
                said = look.ask(question, max_new_tokens=NAMING_TOKENS).text
                found["yes_no"].append((row["image"], said.startswith(right)))
        said = look.ask(row["describe"], max_new_tokens=NAMING_TOKENS).text
        found["words"].append((row["image"], names_right(said, row["names"])))
    return found


def names_right(said: str, names: Sequence[str]) -> bool:
    """Whether a description begins with one of the names that are there, or says that there is nothing where nothing
    is."""
    if not names:
        return said.startswith(NOTHING)
    begun = [kind for kind in KINDS if said.lower().startswith(kind)]
    return bool(begun) and max(begun, key=len) in names


def within(rated: Sequence[Rated]) -> dict[str, Any]:
    """``figures.by_column`` by source: a subset of BIQ2021, or LIVE-C."""
    rows = [
        RatedImage(
            str(one.row.image), one.row.mos, one.row.quality, source=one.row.group, columns={"by": one.row.source}
        )
        for one in rated
    ]
    return by_column([one.value for one in rated], rows, "by", RESAMPLES, 0)


class Weights:
    """The Bayesian bootstrap of ``balance.noise``: one weight a photo, whatever is asked about it, and the same ones in
    every run on these photos."""

    def __init__(self, images: Sequence[str]):
        self.place = {image: number for number, image in enumerate(dict.fromkeys(images))}
        shape = (WEIGHTINGS, len(self.place) + len(PSEUDO))
        self.weights = np.random.default_rng(0).exponential(size=shape)

    def of(self, images: Sequence[str]) -> np.ndarray:
        return self.weights[:, [self.place[image] for image in images]]

    def accuracy(self, rights: Sequence[tuple[str, bool]]) -> np.ndarray:
        """(WEIGHTINGS,)"""
        right, pseudo = np.array([right for _, right in rights], float), self.weights[:, len(self.place) :]
        return weighted_accuracy(right, self.of([image for image, _ in rights]), pseudo)

    def scoring(self, rated: Sequence[Rated]) -> np.ndarray:
        """(WEIGHTINGS,) of (SRCC + PLCC) / 2, mean over sources; 0 where none has it, as in ``scoring_of``."""
        found = []
        for source in sorted({one.row.source for one in rated}):
            some = [one for one in rated if one.row.source == source]
            value, truth = (np.array(v, float) for v in ([s.value for s in some], [s.row.quality for s in some]))
            if len(some) >= LEAST and np.ptp(value) > 0 and np.ptp(truth) > 0:
                found.append(weighted_scoring(value, truth, self.of([str(one.row.image) for one in some])))
        return np.mean(found, axis=0) if found else np.zeros(WEIGHTINGS)


def _paper(table: dict[str, Any]) -> float:
    both = [(one["srcc"] + one["plcc"]) / 2 for one in table["groups"].values() if one["srcc"] is not None]
    return float(np.mean(both)) if both else 0.0


def _figure(value: float, draws: np.ndarray) -> dict[str, Any]:
    low, high = np.percentile(draws, ENDS)
    return {"value": round(value, 5), "interval": [round(float(low), 5), round(float(high), 5)]}
