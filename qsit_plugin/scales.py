"""Other scales for a score: plain stretches of [0, 1], and stored calibrations onto a database's MOS scale.

A calibration is one entry of a profile's ``scales``: ``{"kind": "logistic4" | "isotonic", "parameters": […], "range":
[low, high]}``, and where it is known ``"fingerprint"``, of the weights that made the scores. It rises everywhere, so
that the order of images stays what the model said. ``evaluation.calibration`` fits entries; this file checks and
applies them and needs nothing but Python.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import Any

from qsit_plugin.weights.errors import short

PLAIN_SCALES = {"0-1": (0.0, 1.0), "0-5": (0.0, 5.0), "1-5": (1.0, 5.0), "0-100": (0.0, 100.0)}
"""Linear stretches of the value. They rename the number; they say nothing about any database's ratings."""

KINDS = ("logistic4", "isotonic")


def apply_calibration(scale: dict[str, Any], value: float) -> float:
    """Map a value in [0, 1] with a stored calibration, clipped to the scale's range.

    ``logistic4``: parameters [b1, b2, b3, b4] of (b1 - b2) / (1 + exp(-(x - b3) / |b4|)) + b2. ``isotonic``: parameters
    [[x …], [y …]], linear between the knots.
    """
    kind, parameters, (low, high) = scale["kind"], scale["parameters"], scale["range"]
    if kind == "logistic4":
        b1, b2, b3, b4 = parameters
        exponent = max(-60.0, min(60.0, -(value - b3) / max(abs(b4), 1e-12)))  # exp beyond that overflows a float
        mapped = (b1 - b2) / (1.0 + math.exp(exponent)) + b2
    elif kind == "isotonic":
        mapped = _interpolate(value, *parameters)
    else:
        raise ValueError(f"unknown calibration kind {short(kind)}; known: {', '.join(KINDS)}")
    return min(max(mapped, low), high)


def scale_problem(name: str, entry: Any) -> str | None:
    """What is wrong with a calibration entry, as the end of a sentence; None when it can be used."""
    if name in PLAIN_SCALES:
        return f"has the name of a plain stretch ({', '.join(PLAIN_SCALES)}) and would never be read: take another name"
    if not isinstance(entry, dict) or entry.keys() - {"fingerprint"} != {"kind", "parameters", "range"}:
        return f"must have exactly the keys kind, parameters and range, and may have fingerprint; got {short(entry)}"
    if not isinstance(entry.get("fingerprint", ""), str):
        return f"must have a fingerprint that is text; got {short(entry['fingerprint'])}"
    if not _numbers(entry["range"], 2) or not entry["range"][0] < entry["range"][1]:
        return f"must have a range [low, high] of two finite numbers, low below high; got {short(entry['range'])}"
    if entry["kind"] == "logistic4":
        return _logistic4_problem(entry["parameters"])
    if entry["kind"] == "isotonic":
        return _isotonic_problem(entry["parameters"])
    return f"is of the unknown kind {short(entry['kind'])}; known: {', '.join(KINDS)}"


def _logistic4_problem(parameters: Any) -> str | None:
    if not _numbers(parameters, 4) or parameters[3] == 0:
        return f"needs parameters [b1, b2, b3, b4], four finite numbers, b4 not 0; got {short(parameters)}"
    if not parameters[0] > parameters[1]:
        return f"must rise, that is, b1 above b2; got b1 = {parameters[0]:g}, b2 = {parameters[1]:g}"
    return None


def _isotonic_problem(parameters: Any) -> str | None:
    if not isinstance(parameters, Sequence) or len(parameters) != 2:
        return f"needs parameters [[x …], [y …]]; got {short(parameters)}"
    xs, ys = parameters
    if not _numbers(xs) or not _numbers(ys) or len(xs) != len(ys) or len(xs) < 2:
        return f"needs two equally long lists of at least two finite numbers; got {short(parameters)}"
    if any(right <= left for left, right in zip(xs, xs[1:], strict=False)):
        return "needs knots whose x rise strictly"
    if any(right < left for left, right in zip(ys, ys[1:], strict=False)) or not ys[-1] > ys[0]:
        return "must rise: no y below the one before it, and the last above the first"
    return None


def _numbers(values: Any, count: int | None = None) -> bool:
    """Whether it is a list of finite numbers; True and False, which Python counts as 1 and 0, are none."""
    if isinstance(values, str) or not isinstance(values, Sequence) or (count is not None and len(values) != count):
        return False
    most = sys.float_info.max  # compared, as isfinite overflows for whole numbers beyond it
    return all(isinstance(v, int | float) and not isinstance(v, bool) and -most <= v <= most for v in values)


def _interpolate(x: float, xs: Sequence[float], ys: Sequence[float]) -> float:
    if x <= xs[0]:
        return ys[0]
    for left, right, low, high in zip(xs, xs[1:], ys, ys[1:], strict=False):
        if x <= right:
            return low + (high - low) * (x - left) / (right - left) if right > left else high
    return ys[-1]
