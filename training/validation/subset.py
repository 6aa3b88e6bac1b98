"""Which rows are validated on the way: few enough to be quick, the same every time, of every kind."""

from __future__ import annotations

from collections.abc import Sequence

from qsit_plugin.protocol import ScoreProfile

from ..data.choices import choice_of
from ..data.rows import TASKS, TrainingRow
from ..data.sampler import largest_remainder, seeded
from .measure import true_level


def stratified(rows: Sequence[TrainingRow], count: int, profile: ScoreProfile, seed: int) -> list[TrainingRow]:
    """``count`` of the rows, in their order; all where there are no more.

    Half of them are ratings, half are not, as far as there are so many; the ratings have the levels and sources of all
    ratings, the others the kinds of question and sources of the others, to within a row each.
    """
    if count >= len(rows):
        return list(rows)
    tasks = {task: [i for i, row in enumerate(rows) if row.task == task] for task in TASKS}
    scarce, plenty = sorted(tasks, key=lambda task: len(tasks[task]))
    wanted = {scarce: min(len(tasks[scarce]), count // 2)}
    wanted[plenty] = count - wanted[scarce]
    chosen: list[int] = []
    for task, members in tasks.items():
        strata: dict[str, list[int]] = {}
        for index in members:
            strata.setdefault(_stratum(rows[index], profile), []).append(index)
        quotas = largest_remainder({name: len(part) for name, part in strata.items()}, wanted[task]) if strata else {}
        for name, quota in quotas.items():
            order = seeded(seed, name).permutation(len(strata[name]))
            chosen += [strata[name][place] for place in order[:quota].tolist()]
    return [rows[index] for index in sorted(chosen)]


def _stratum(row: TrainingRow, profile: ScoreProfile) -> str:
    if row.task == "score":
        return f"score/{row.source}/{true_level(row, profile)}"
    question = choice_of(row)
    return f"interpret/{row.source}/" + ("text" if question is None else f"choice/{question.type}")
