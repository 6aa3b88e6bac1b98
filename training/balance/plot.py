"""The plot of a search: curves with bands, trials as points, what is tied with the best. Needs matplotlib."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from .fit import Fit
from .noise import figures_of
from .report import Report

NAME = "balance.png"
COLORS = {"scoring, (SRCC + PLCC) / 2": "#0072b2", "accuracy": "#d55e00"}  # colour-blind readers can tell them apart


def draw_plot(report: Report) -> Path | None:
    """Write balance.png beside ratio.yaml and return its path; None where matplotlib is not installed."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg  # pyplot would look for a screen
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        return None
    stages: list[tuple[Fit, str, Any]] = [(report.found.best, "share of scoring data", report.found.point[0])]
    if report.found.first is not None:
        stages.insert(0, (report.found.first, "quality data among the interpreting data", report.found.quality))
    figure = Figure(figsize=(6.8 * len(stages), 5.4), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(stages), squeeze=False)[0]
    for axes, (fit, label, chosen) in zip(panels, stages, strict=True):
        _curves(axes, fit, label, chosen)
    _baselines(panels[-1], report)
    for axes in panels:
        axes.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=3, frameon=False)
    content = report.ratio.content
    figure.suptitle(f"{content['light_model']}, {len(report.trials)} trials of {content['budget']['samples']:,} rows")
    path = report.ratio.path.with_name(NAME)
    figure.savefig(path, dpi=120)
    return path


def _curves(axes: Any, fit: Fit, label: str, chosen: float) -> None:
    low, high = fit.interval
    axes.axvspan(low, high, color="#009e73", alpha=0.13, label="tied with the best (95%)")
    axes.axvline(chosen, color="#009e73", linewidth=1, label="chosen")
    below, above = np.quantile(fit.draws, [0.025, 0.975], axis=0)
    for number, (name, color) in enumerate(COLORS.items()):
        axes.fill_between(fit.grid, below[:, number], above[:, number], color=color, alpha=0.2, linewidth=0)
        axes.plot(fit.grid, fit.values[:, number], color=color, label=name)
        axes.plot(fit.shares, fit.figures[:, number], "o", color=color, markersize=5, markeredgecolor="white")
    axes.plot(fit.grid, fit.values[:, 2], color="black", linestyle="--", linewidth=1, label="objective (harmonic)")
    axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
    axes.set_xlabel(label)
    axes.grid(alpha=0.25)
    axes.set_title(f"chosen {chosen:.0%}, tied {low:.0%} to {high:.0%}", fontsize=10)


def _baselines(axes: Any, report: Report) -> None:
    """Mixtures that are not on the line stand at their scoring share, as open marks."""
    axes.axhline(report.objective.chance, color="grey", linestyle=":", linewidth=1, label="accuracy of guessing")
    for mark, (name, point) in zip("sD", report.design.baselines.items(), strict=True):
        means = figures_of([trial for trial in report.trials if trial.point == point])[:, :2].mean(axis=0)
        for label, mean, color in zip((f"{name} mixture", None), means, COLORS.values(), strict=True):
            axes.plot(point[0], mean, mark, markersize=9, fillstyle="none", color=color, label=label)
