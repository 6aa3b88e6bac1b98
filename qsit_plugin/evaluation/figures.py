"""One metric's figures on rated images: correlations with intervals, on all of them and by the values of a column."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .datasets.ratings import FIELDS, DatasetError, RatedImage
from .statistics import agreement, bootstrap, bootstrap_mean_srcc, srcc

FIGURES = ("n", "srcc", "plcc", "krcc", "plcc_logistic4", "rmse_logistic4")
LEAST = 3
"""Images that a correlation needs."""


def correlate(predicted: Sequence[float], rows: Sequence[RatedImage]) -> dict[str, Any]:
    """``statistics.agreement`` with ``quality``; where it is not defined the figures are None."""
    return dict.fromkeys(FIGURES) | agreement(predicted, [row.quality for row in rows])


def figures_of(predicted: Sequence[float], rows: Sequence[RatedImage], resamples: int, seed: int) -> dict[str, Any]:
    """``correlate``, and 95% percentile bootstrap ``intervals`` over ``source`` groups; None without resamples."""
    sources = [row.source for row in rows]
    result = {**correlate(predicted, rows), "sources": len(set(sources)), "intervals": None}
    if not resamples:
        return result
    try:
        found = bootstrap(predicted, [row.quality for row in rows], sources, samples=resamples, seed=seed)
    except ValueError as error:
        return result | {"intervals_error": str(error)}
    return result | {"intervals": {name: list(ends) for name, ends in found.items()}}


def check_column(rows: Sequence[RatedImage], column: str) -> None:
    """Raise DatasetError unless figures can be given by this column: it is there, and a value has three images."""
    held = list(dict.fromkeys([*(name for row in rows for name in row.columns), *FIELDS]))
    held = [name for name in held if any(row.label(name) is not None for row in rows)]
    if column not in held:
        raise DatasetError(f"no image has a value in a column {column!r}; there are {', '.join(held)}")
    labels = [row.label(column) for row in rows]
    values = set(labels) - {None}
    if max(labels.count(value) for value in values) < LEAST:
        raise DatasetError(
            f"the column {column!r} has {len(values):,} values for {len(rows):,} images, none of them for {LEAST}: no "
            "correlation is defined"
        )


def by_column(
    predicted: Sequence[float], rows: Sequence[RatedImage], column: str, resamples: int, seed: int
) -> dict[str, Any]:
    """The figures within each value of a column, and of a baseline that knows the value alone.

    ``groups``: ``figures_of`` by value. ``mean_srcc``: unweighted mean of the SRCC of the values that have one, ``of``
    how many; ``mean_srcc_interval``: 95% bootstrap over the sources of all of them. ``value_alone``: SRCC on the same
    images of the mean rating of each image's value: the baseline for the figures on all images. ``without_value``:
    images left out.
    """
    members: dict[str, list[int]] = {}
    for i, row in enumerate(rows):
        if (value := row.label(column)) is not None:
            members.setdefault(value, []).append(i)
    groups = {
        value: figures_of([predicted[i] for i in members[value]], [rows[i] for i in members[value]], resamples, seed)
        for value in sorted(members, key=_order)
    }
    defined = {value: figures["srcc"] for value, figures in groups.items() if figures["srcc"] is not None}
    chosen = [(i, value) for value in defined for i in members[value]]
    result: dict[str, Any] = {
        "groups": groups,
        "mean_srcc": sum(defined.values()) / len(defined) if defined else None,
        "mean_srcc_interval": None,
        "of": len(defined),
        "value_alone": _value_alone(rows, members),
        "without_value": len(rows) - sum(map(len, members.values())),
    }
    if not resamples or not defined:
        return result
    try:
        ends = bootstrap_mean_srcc(
            [predicted[i] for i, _ in chosen],
            [rows[i].quality for i, _ in chosen],
            [value for _, value in chosen],
            [rows[i].source for i, _ in chosen],
            samples=resamples,
            seed=seed,
        )
    except ValueError as error:
        return result | {"mean_srcc_interval_error": str(error)}
    return result | {"mean_srcc_interval": list(ends)}


def _value_alone(rows: Sequence[RatedImage], members: dict[str, list[int]]) -> float | None:
    quality = [rows[i].quality for found in members.values() for i in found]
    means = [sum(rows[i].quality for i in found) / len(found) for found in members.values() for _ in found]
    try:
        return srcc(means, quality)
    except ValueError:  # one value only
        return None


def _order(value: str) -> tuple[bool, float, str]:
    """Numbers by their size, then texts."""
    try:
        return False, float(value), value
    except ValueError:
        return True, 0.0, value
