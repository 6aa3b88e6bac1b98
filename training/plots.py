"""The curves of a run: losses, learning rates and validation figures over its steps. Needs matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .run_log import logged

PICTURE = "training.png"
FIGURES, LOSSES = ("srcc", "plcc", "accuracy"), ("score_loss", "interpret_loss")
Curves = dict[str, list[tuple[int, float]]]


def draw_curves(output: Path) -> Path | None:
    """Write training.png beside log.jsonl; None where matplotlib is not installed or nothing was logged."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg  # pyplot would look for a screen
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        return None
    steps = logged(output / "log.jsonl", ("step", "learning_rate"))
    checks = logged(output / "validation.jsonl", ("step", "rows"))
    if not steps:
        return None
    checks = [check for check in checks if check["rows"] == checks[0]["rows"]]  # all rows at the end: another measure
    rates = steps[0]["learning_rate"]
    panels: dict[str, Curves] = {
        "training loss": _curves(steps, ["loss"]),
        "learning rate": {name: [(row["step"], row["learning_rate"][name]) for row in steps] for name in rates},
        "validation loss": _curves(checks, LOSSES),
        "validation": _curves(checks, FIGURES),
    }
    panels = {title: curves for title, curves in panels.items() if curves}
    figure = Figure(figsize=(4.2 * len(panels), 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (title, curves) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        _panel(axes, title, curves)
    path = output / PICTURE
    figure.savefig(path, dpi=110)
    return path


def _curves(rows: Sequence[dict[str, Any]], names: Sequence[str]) -> Curves:
    curves = {name: [(row["step"], row[name]) for row in rows if row.get(name) is not None] for name in names}
    return {name: curve for name, curve in curves.items() if curve}


def _panel(axes: Any, title: str, curves: Curves) -> None:
    for name, curve in curves.items():
        axes.plot(*zip(*curve, strict=True), label=name, marker="." if len(curve) < 30 else None)
    axes.set_title(title, fontsize=10)
    axes.set_xlabel("step")
    axes.grid(alpha=0.25)
    axes.legend(fontsize=8)
