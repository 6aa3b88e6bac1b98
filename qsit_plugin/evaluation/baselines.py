"""Baselines: no-reference metrics of pyiqa, run on the same images. pyiqa is imported only when one is named."""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from qsit_plugin.errors import QSiTError
from qsit_plugin.weights.errors import first_line


class MetricError(QSiTError, RuntimeError):
    """A metric that does not exist, cannot be created, or needs a reference image."""


def check_names(names: Sequence[str]) -> None:
    """Raise MetricError for a name that pyiqa does not have, or that needs a reference image.

    Full-reference metrics are refused also where a dataset has references: their figures are not comparable with
    those of no-reference ones. Raises ModuleNotFoundError without pyiqa.
    """
    if not names:
        return
    known = _pyiqa().default_model_configs.DEFAULT_CONFIGS
    for name in names:
        if name not in known:
            raise MetricError(f"no metric {name!r}: pyiqa.list_models() lists what --metrics takes, besides qsit names")
        if known[name].get("metric_mode", "NR") != "NR":
            raise MetricError(f"{name} needs a reference image; --metrics takes no-reference metrics only")


def open_metric(name: str, device: str) -> BaselineScorer:
    """Create a metric. Raises MetricError with the reason, for example weights that cannot be downloaded."""
    check_names([name])
    pyiqa = _pyiqa()
    try:
        with contextlib.redirect_stdout(sys.stderr):  # pyiqa prints what it loads, and stdout is for the result
            metric = pyiqa.create_metric(name, device=device)
    except Exception as error:  # whatever the metric's own code raises is the reason that the user gets
        raise MetricError(f"{name} cannot be created: {type(error).__name__}: {first_line(error)}") from error
    return BaselineScorer(name, metric, pyiqa)


class BaselineScorer:
    """A no-reference metric of pyiqa, given the path of one image at a time, as its own command line does."""

    def __init__(self, name: str, metric: Any, pyiqa: Any):
        self.name = name
        self.metric = metric
        self.lower_is_better = bool(metric.lower_better)
        options = pyiqa.default_model_configs.DEFAULT_CONFIGS[name]
        self.fingerprint = {"kind": "pyiqa", "pyiqa": pyiqa.__version__, "options": repr(options)}

    def outcomes(self, paths: Iterable[Path]) -> Iterator[dict[str, Any]]:
        for path in paths:
            try:
                with contextlib.redirect_stdout(sys.stderr):
                    value = float(self.metric(str(path)))
            except Exception as error:  # one image that a metric cannot take (too small, broken) is that image's result
                yield {"error": f"{type(error).__name__}: {first_line(error)}"}
                continue
            yield {"score": value} if math.isfinite(value) else {"error": f"the score is {value}"}


def _pyiqa() -> Any:
    try:
        with contextlib.redirect_stdout(sys.stderr):
            import pyiqa
            import pyiqa.default_model_configs
    except ModuleNotFoundError as error:
        if error.name != "pyiqa":
            raise
        raise ModuleNotFoundError(
            'metrics other than qsit\'s come from pyiqa, which is not installed: pip install "qsit-plugin[pyiqa]"',
            name="pyiqa",
        ) from None
    return pyiqa
