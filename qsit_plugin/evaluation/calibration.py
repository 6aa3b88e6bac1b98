"""Calibration: a monotonic map from score to the MOS scale of one database, stored in the profile of a checkpoint.

A score is on the model's own scale, the ratings of a database on another. The map is fitted on the database's
validation rows only and evaluated on its test rows. Every scale has its own map: the ratings of two databases are not
in one unit (a KonIQ 60 is no SPAQ 60), so their rows are never pooled. A strictly increasing map leaves SRCC as it is;
it improves PLCC and the error in MOS units.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from qsit_plugin.errors import QSiTError
from qsit_plugin.protocol import FILE_NAME, OFFICIAL, ScoreProfile
from qsit_plugin.scales import KINDS, apply_calibration, scale_problem

from . import statistics

FIT_SPLIT, REPORT_SPLIT = "validation", "test"


class CalibrationError(QSiTError, ValueError):
    """A map that cannot be fitted or must not be stored."""


def fit_scale(
    scores: ArrayLike, mos: ArrayLike, *, kind: str = "logistic4", range: tuple[float, float] | None = None
) -> dict[str, Any]:
    """Fit a calibration: the entry of a profile's ``scales``, ready for JSON.

    Args:
        scores: N values in [0, 1] of one model with one profile.
        mos: the N ratings of one database, higher is better (negate DMOS first).
        kind: ``"logistic4"``, four parameters, smooth and strictly increasing; or ``"isotonic"``, the least-squares
            non-decreasing map, with flat parts and therefore ties.
        range: ends of the MOS scale; mapped values are clipped to it. None takes the lowest and highest of ``mos``.

    Raises:
        CalibrationError: an unknown kind, scores outside [0, 1], or scores that do not rise with the ratings.
        FitError: the logistic does not converge.
        ValueError: as ``statistics.srcc`` does.
    """
    if kind not in KINDS:
        raise CalibrationError(f"no calibration of kind {kind!r}: give one of {', '.join(KINDS)}")
    x, y = np.asarray(scores, dtype=float), np.asarray(mos, dtype=float)
    rho = statistics.srcc(x, y)
    if x.min() < 0.0 or x.max() > 1.0:
        raise CalibrationError(
            f"scores must be values in [0, 1], as Score.value; got {x.min():g} to {x.max():g}. A map of other numbers "
            f"would be applied to the wrong ones"
        )
    if rho <= 0.0:
        raise CalibrationError(
            f"the score falls where the MOS rises (SRCC {rho:.3f} on {len(x)} rows): a calibration must rise. Where "
            f"the ratings are DMOS (lower is better), negate them first"
        )
    low, high = (float(y.min()), float(y.max())) if range is None else (float(range[0]), float(range[1]))
    entry = {"kind": kind, "parameters": _PARAMETERS[kind](x, y), "range": [low, high]}
    if problem := scale_problem("fitted", entry):
        raise CalibrationError(f"the {kind} fit of {len(x)} rows cannot be used: it {problem}")
    return entry


def _logistic4(scores: np.ndarray, mos: np.ndarray) -> list[float]:
    b1, b2, b3, b4 = statistics.fit_logistic4(scores, mos).parameters
    return [b1, b2, b3, abs(b4)]


def _isotonic(scores: np.ndarray, mos: np.ndarray) -> list[list[float]]:
    """Knots [[x …], [y …]]. Rows of one score are one knot, at their mean, so that the map is a function."""
    from scipy.optimize import isotonic_regression

    xs, row = np.unique(scores, return_inverse=True)
    count = np.bincount(row)
    ys = isotonic_regression(np.bincount(row, weights=mos) / count, weights=count).x
    # A knot inside a flat part is on the line between its neighbours: without it the map is the same.
    inside = np.zeros(len(xs), dtype=bool)
    inside[1:-1] = (ys[1:-1] == ys[:-2]) & (ys[1:-1] == ys[2:])
    return [xs[~inside].tolist(), ys[~inside].tolist()]


_PARAMETERS = {"logistic4": _logistic4, "isotonic": _isotonic}


def apply_scale(entry: dict[str, Any], scores: ArrayLike) -> np.ndarray:
    """Float64 (N,): the N scores on the calibrated scale, each exactly as ``Score.on`` gives it."""
    return np.array([apply_calibration(entry, float(value)) for value in np.asarray(scores, dtype=float)])


def calibrate(
    scores: ArrayLike,
    mos: ArrayLike,
    split: Sequence[str],
    *,
    kinds: Sequence[str] = KINDS,
    range: tuple[float, float] | None = None,
    fingerprint: str | None = None,
) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
    """Fit on the rows whose split is "validation", report on those whose split is "test"; no other row is used.

    Returns ``(entries, report)``, both by kind. A report has ``{"n", "srcc", "plcc", "rmse"}`` on the test rows; its
    first line, "raw", is the score as it is, and its RMSE that of the score stretched linearly over the range (what
    ``Score.on("0-100")`` would give). "mean" predicts the mean of the validation ratings for every photo: the
    constant baseline. ``fingerprint``: of the weights that made the scores; the entries then hold for no other ones.

    Raises CalibrationError where there are no rows to fit on or to report on, for ratings outside the range, and as
    ``fit_scale`` does.
    """
    x, y, names = np.asarray(scores, dtype=float), np.asarray(mos, dtype=float), np.asarray(split)
    fit, test = names == FIT_SPLIT, names == REPORT_SPLIT
    for wanted, rows in ((FIT_SPLIT, fit), (REPORT_SPLIT, test)):
        if not rows.any():
            found = ", ".join(sorted({str(name) for name in names})) or "none"
            raise CalibrationError(
                f"no row has split {wanted!r}; splits found: {found}. A map is fitted on {FIT_SPLIT} rows and judged "
                f"on {REPORT_SPLIT} rows, never on the rows it was fitted on"
            )
    if range is not None and (outside := int(((y < range[0]) | (y > range[1])).sum())):
        raise CalibrationError(
            f"{outside:,} of {len(y):,} ratings are outside the range {range[0]:g} to {range[1]:g}, they go from "
            f"{y.min():g} to {y.max():g}: the scale would end where ratings go on. Give the range of the rating scale"
        )
    entries = {kind: fit_scale(x[fit], y[fit], kind=kind, range=range) for kind in kinds}
    low, high = (float(y[fit].min()), float(y[fit].max())) if range is None else range
    mean = {"n": int(test.sum()), "srcc": None, "plcc": None, "rmse": statistics.rmse(y[fit].mean(), y[test])}
    report = {"raw": _figures(x[test], y[test], low + (high - low) * x[test]), "mean": mean}
    for kind, entry in entries.items():
        mapped = apply_scale(entry, x[test])
        report[kind] = _figures(mapped, y[test], mapped)
    if fingerprint is not None:
        entries = {kind: entry | {"fingerprint": fingerprint} for kind, entry in entries.items()}
    return entries, report


def _figures(predicted: np.ndarray, mos: np.ndarray, on_scale: np.ndarray) -> dict[str, Any]:
    return {
        "n": len(mos),
        "srcc": statistics.srcc(predicted, mos),
        "plcc": statistics.plcc(predicted, mos),
        "rmse": statistics.rmse(on_scale, mos),
    }


def save_scale(
    target: str | os.PathLike[str],
    name: str,
    entry: dict[str, Any],
    *,
    base: ScoreProfile | None = None,
    overwrite: bool = False,
) -> Path:
    """Add a calibration to a profile; returns the file.

    Args:
        target: a checkpoint folder (its ``qsit.json``), or a JSON file of your own, which ``qsit_plugin.load(…,
            profile=…)`` and ``qsit score --profile`` take. Use a file for the embedded model and for checkpoints in the
            Hub's cache, which other programs share.
        name: of the scale, for example ``"koniq"``: what ``Score.on`` is asked for.
        base: the profile that the scores were read with, for a file that does not exist yet; default the official one.
        overwrite: replace an entry of this name.

    Raises:
        CalibrationError: a malformed or a decreasing map, a name that is taken, or a target that must not be written.
        ProfileError: the existing profile is malformed.
    """
    path = Path(target)
    path = path / FILE_NAME if path.is_dir() else path
    if not path.parent.is_dir():
        raise CalibrationError(f"cannot write {path}: the folder {path.parent} does not exist")
    if not name.strip():
        raise CalibrationError("a scale needs a name, for example koniq")
    if problem := scale_problem(name, entry):
        raise CalibrationError(f"scale {name!r} {problem}")
    if path.is_symlink():
        raise CalibrationError(f"{path} is a link into a cache that others share: give a JSON file of your own")
    profile = _existing(path, base) if path.exists() else base or OFFICIAL
    if name in profile.scales and not overwrite:
        raise CalibrationError(f"{path} already has a scale {name!r}: overwrite it, or take another name")
    try:
        return replace(profile, scales={**profile.scales, name: entry}).save(path)
    except OSError as error:
        raise CalibrationError(f"cannot write {path} ({error.strerror}): give a JSON file of your own") from None


def _existing(path: Path, base: ScoreProfile | None) -> ScoreProfile:
    """The profile in a file. Raises CalibrationError where it is not the one that the map was fitted with."""
    profile = ScoreProfile.load(path)
    if base is not None:
        theirs, ours = (asdict(one) | {"scope_kind": one.kind} for one in (profile, base))
        other = [key for key in theirs if key != "scales" and theirs[key] != ours[key]]
        if other:
            raise CalibrationError(
                f"{path} is another profile ({', '.join(other)} differ): a calibration holds only for scores of the "
                f"profile it was fitted with. Give another file"
            )
    return profile
