"""Agreement of predicted scores with human ratings: correlations, the logistic fit, bootstrap intervals.

Raw and fitted figures have different names and are never mixed: ``plcc`` is Pearson's correlation of the scores as they
are (as Q-SiT, Q-Bench and pyiqa report it), ``plcc_logistic4`` the one after a four-parameter logistic fit (as the VQEG
reports prescribe). All inputs are one-dimensional, of equal length, and higher means better in both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from qsit_plugin.errors import QSiTError

MAX_CALLS = 20_000
"""Function evaluations of a fit; scipy's 1,000 are too few for scores that crowd at one end of their range."""


class FitError(QSiTError, ValueError):
    """The logistic fit does not converge on these values."""


def srcc(predicted: ArrayLike, target: ArrayLike) -> float:
    """Spearman's rank correlation in [-1, 1]; ties take their mean rank.

    Raises ValueError for lengths that differ, fewer than three values, and values that are not finite or all equal.
    """
    from scipy.stats import rankdata

    x, y = _pair(predicted, target)
    return _pearson(rankdata(x), rankdata(y))


def plcc(predicted: ArrayLike, target: ArrayLike) -> float:
    """Pearson's linear correlation in [-1, 1], without any fit. Raises ValueError as ``srcc`` does."""
    return _pearson(*_pair(predicted, target))


def krcc(predicted: ArrayLike, target: ArrayLike) -> float:
    """Kendall's tau-b in [-1, 1]. Raises ValueError as ``srcc`` does."""
    from scipy.stats import kendalltau

    x, y = _pair(predicted, target)
    return float(kendalltau(x, y).statistic)


@dataclass(frozen=True)
class Logistic4:
    """The curve ``(b1 - b2) / (1 + exp(-(x - b3) / |b4|)) + b2``, the form that ``scores.apply_calibration`` reads.

    ``parameters``: (b1, b2, b3, b4), the values at +infinity and -infinity, the middle, and the width on the x axis.
    """

    parameters: tuple[float, float, float, float]

    def __call__(self, x: ArrayLike) -> np.ndarray:
        return _logistic4(np.asarray(x, dtype=float), *self.parameters)


def fit_logistic4(predicted: ArrayLike, target: ArrayLike) -> Logistic4:
    """Least-squares fit of a four-parameter logistic from score to rating.

    The scores are standardised for the fit: on q-sit's [0, 1], or on Q-Bench's [.49, .51], the optimiser's unit steps
    would otherwise leave the data. The start is [max, min, mean, std / 4], as IQA evaluations have it.

    Raises:
        FitError: the fit does not converge, or there are fewer than four values.
        ValueError: as ``srcc`` does.
    """
    import warnings

    from scipy.optimize import curve_fit

    x, y = _pair(predicted, target)
    if len(x) < 4:
        raise FitError(f"four parameters cannot be fitted to {len(x)} values: at least 4 are needed")
    centre, width = float(x.mean()), float(x.std())
    start = [y.max(), y.min(), 0.0, 0.25]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the covariance, which is not used, may not be estimable
            found, _ = curve_fit(_logistic4, (x - centre) / width, y, p0=start, maxfev=MAX_CALLS)
    except RuntimeError as error:
        raise FitError(
            f"the logistic fit of {len(x)} values did not converge: {' '.join(str(error).split())}"
        ) from None
    b1, b2, b3, b4 = (float(value) for value in found)
    if not np.all(np.isfinite(found)):
        raise FitError(f"the logistic fit of {len(x)} values gave parameters that are not finite: {found.tolist()}")
    return Logistic4((b1, b2, b3 * width + centre, b4 * width))


def correlations(predicted: ArrayLike, target: ArrayLike) -> dict[str, Any]:
    """``{"n", "srcc", "plcc", "krcc", "plcc_logistic4", "rmse_logistic4"}``.

    ``rmse_logistic4`` is in units of the target. Where the fit fails both fitted figures are None, and a further key
    ``logistic4_error`` says why: a raw figure never stands under a fitted name. A fit also turns scores that run the
    wrong way, so read ``plcc_logistic4`` together with the sign of ``srcc``. Raises ValueError as ``srcc`` does.
    """
    x, y = _pair(predicted, target)
    result: dict[str, Any] = {"n": len(x), "srcc": srcc(x, y), "plcc": plcc(x, y), "krcc": krcc(x, y)}
    try:
        fitted = fit_logistic4(x, y)(x)
        if np.ptp(fitted) == 0.0:
            raise FitError(f"the logistic fit of {len(x)} values is a constant: score and rating are unrelated")
    except FitError as error:
        return result | {"plcc_logistic4": None, "rmse_logistic4": None, "logistic4_error": str(error)}
    return result | {"plcc_logistic4": plcc(fitted, y), "rmse_logistic4": rmse(fitted, y)}


def agreement(predicted: ArrayLike, target: ArrayLike) -> dict[str, Any]:
    """``correlations``; where they are not defined (too few values, or all are equal) ``n``, and why as ``error``."""
    try:
        return correlations(predicted, target)
    except ValueError as error:
        return {"n": len(np.asarray(predicted)), "error": str(error)}


def rmse(predicted: ArrayLike, target: ArrayLike) -> float:
    """Root mean squared error, in the unit that both share."""
    difference = np.asarray(predicted, dtype=float) - np.asarray(target, dtype=float)
    return float(np.sqrt(np.mean(difference**2)))


STATISTICS: dict[str, Callable[[ArrayLike, ArrayLike], float]] = {"srcc": srcc, "plcc": plcc, "krcc": krcc}
"""What ``bootstrap`` can resample, by name."""


def bootstrap(
    predicted: ArrayLike,
    target: ArrayLike,
    groups: ArrayLike | None = None,
    *,
    statistics: Sequence[str] = ("srcc", "plcc"),
    samples: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
) -> dict[str, tuple[float, float]]:
    """Percentile bootstrap intervals, ``{statistic: (low, high)}``.

    ``groups``: one label a row, for example the source image. Whole groups are then drawn: distorted versions of one
    photo are not independent, and drawing rows would give intervals that are too narrow.

    Raises ValueError as ``srcc`` does, for an unknown statistic, fewer than three groups, and where more than one
    resample in ten is all ties.
    """
    x, y = _pair(predicted, target)
    unknown = [name for name in statistics if name not in STATISTICS]
    if unknown:
        raise ValueError(f"no statistic {unknown[0]!r} to resample: give some of {', '.join(STATISTICS)}")

    def figures(rows: np.ndarray) -> list[float] | None:
        a, b = x[rows], y[rows]
        return [STATISTICS[name](a, b) for name in statistics] if _is_defined(a, b) else None

    return dict(zip(statistics, _intervals(figures, len(x), groups, samples, seed, confidence), strict=True))


def bootstrap_mean_srcc(
    predicted: ArrayLike,
    target: ArrayLike,
    parts: ArrayLike,
    groups: ArrayLike | None = None,
    *,
    samples: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
) -> tuple[float, float]:
    """Percentile bootstrap interval of the unweighted mean of the SRCC within each part.

    ``parts``: one label a row. ``groups``: whole ones are drawn, from all parts together, as ``bootstrap`` does: a
    photo may have a version in every part. Raises ValueError as ``bootstrap`` does; a resample in which one part has no
    correlation counts as one of ties.
    """
    x, y = _pair(predicted, target)
    _, number = np.unique(np.asarray(parts), return_inverse=True)

    def figures(rows: np.ndarray) -> list[float] | None:
        within = [rows[number[rows] == part] for part in range(int(number.max()) + 1)]
        if not all(_is_defined(x[part], y[part]) for part in within):
            return None
        return [float(np.mean([srcc(x[part], y[part]) for part in within]))]

    return _intervals(figures, len(x), groups, samples, seed, confidence)[0]


def _intervals(
    figures: Callable[[np.ndarray], list[float] | None],
    rows: int,
    groups: ArrayLike | None,
    samples: int,
    seed: int,
    confidence: float,
) -> list[tuple[float, float]]:
    """(low, high) of every figure over resamples; ``figures`` takes row numbers, None is for ties only."""
    if samples < 1 or not 0.0 < confidence < 1.0:
        raise ValueError(f"samples must be at least 1, confidence within (0, 1); got {samples} and {confidence}")
    members = _members(groups, rows)
    rng = np.random.default_rng(seed)
    count = len(members)
    draws = (np.concatenate([members[i] for i in rng.integers(count, size=count)]) for _ in range(samples))
    found = [values for draw in draws if (values := figures(draw)) is not None]
    if (lost := samples - len(found)) * 10 > samples:
        raise ValueError(
            f"{lost} of {samples} resamples hold equal values only: {rows} rows in {count} groups "
            "are too few or too tied for an interval"
        )
    ends = [50.0 * (1.0 - confidence), 50.0 * (1.0 + confidence)]
    pairs = (np.percentile(values, ends) for values in zip(*found, strict=True))
    return [(float(low), float(high)) for low, high in pairs]


def _is_defined(x: np.ndarray, y: np.ndarray) -> bool:
    return len(x) >= 3 and np.ptp(x) > 0.0 and np.ptp(y) > 0.0


def _members(groups: ArrayLike | None, rows: int) -> list[np.ndarray]:
    """The row numbers of every group; every row is its own group where no groups are given."""
    if groups is None:
        return list(np.arange(rows)[:, None])
    labels = np.asarray(groups)
    if labels.shape != (rows,):
        raise ValueError(f"groups must hold one label for each of the {rows} rows, got shape {labels.shape}")
    _, number = np.unique(labels, return_inverse=True)
    order = np.argsort(number, kind="stable")
    members = np.split(order, np.cumsum(np.bincount(number))[:-1])
    if len(members) < 3:
        raise ValueError(f"an interval over groups needs at least 3 groups, got {len(members)}")
    return members


def _pair(predicted: ArrayLike, target: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    x, y = np.asarray(predicted, dtype=float), np.asarray(target, dtype=float)
    if x.ndim != 1 or y.ndim != 1 or len(x) != len(y):
        raise ValueError(f"predicted and target must be 1-D and of equal length, got shapes {x.shape} and {y.shape}")
    if len(x) < 3:
        raise ValueError(f"a correlation needs at least 3 values, got {len(x)}")
    for name, values in (("predicted", x), ("target", y)):
        bad = int(np.count_nonzero(~np.isfinite(values)))
        if bad:
            raise ValueError(f"{name} holds {bad} of {len(values)} values that are not finite: drop or fix those rows")
        if np.ptp(values) == 0.0:
            raise ValueError(f"{name} is constant ({values[0]:g} in all {len(values)} rows): no correlation is defined")
    return x, y


def _pearson(x: np.ndarray, y: np.ndarray) -> float:
    x, y = x - x.mean(), y - y.mean()
    return float(np.clip(x @ y / np.sqrt((x @ x) * (y @ y)), -1.0, 1.0))


def _logistic4(x: np.ndarray, b1: float, b2: float, b3: float, b4: float) -> np.ndarray:
    exponent = np.clip(-(x - b3) / max(abs(b4), 1e-12), -60.0, 60.0)  # exp beyond that overflows a float
    return (b1 - b2) / (1.0 + np.exp(exponent)) + b2
