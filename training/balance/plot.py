"""The picture of a search: curves with bands, trials as points, what is tied with the best. Needs matplotlib."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from .analysis import Fit, figures_of
from .report import Report

NAME = "balance.png"
COLORS = {"scoring": "#0072b2", "accuracy": "#d55e00"}  # told apart by colour-blind readers too


def draw_plot(report: Report) -> Path | None:
    """Write balance.png beside ratio.yaml and return its path; None where matplotlib is not installed."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg  # pyplot would look for a screen
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        return None
    fits = [fit for fit in (report.first, report.best) if fit is not None]
    figure = Figure(figsize=(6.8 * len(fits), 5.4), layout="constrained")
    FigureCanvasAgg(figure)
    for fit, axes in zip(fits, np.atleast_1d(figure.subplots(1, len(fits))), strict=True):
        if fit.axis is None:
            _triangle(figure, axes, fit, report)
        else:
            _line(axes, fit, report)
    content = report.ratio.content
    figure.suptitle(f"{content['light_model']}, {len(report.trials)} trials of {content['budget']['samples']:,} rows")
    path = report.folder / NAME
    figure.savefig(path, dpi=120)
    return path


def _line(axes: Any, fit: Fit, report: Report) -> None:
    x = _places(fit)
    low, high = fit.axis_interval()
    axes.axvspan(low, high, color="#009e73", alpha=0.13, label="tied with the best (95%)")
    chosen = report.choice.point[0] if fit.axis == "scoring" else report.ratio.content["first_stage"]["quality"]
    axes.axvline(chosen, color="#009e73", linewidth=1, label="chosen")
    for number, (name, told) in enumerate((("scoring", "scoring, (SRCC + PLCC) / 2"), ("accuracy", "accuracy"))):
        one = getattr(fit, name)
        below, above = one.band()
        axes.fill_between(fit.x, below, above, color=COLORS[name], alpha=0.2, linewidth=0)
        axes.plot(fit.x, one.fit, color=COLORS[name], label=told)
        axes.plot(x, fit.figures[:, number], "o", color=COLORS[name], markersize=5, markeredgecolor="white")
    axes.plot(
        fit.x, fit.values, color="black", linestyle="--", linewidth=1, label=f"objective ({report.objective.name})"
    )
    if fit.axis == "scoring":
        _baselines(axes, report)
        axes.axhline(report.objective.chance, color="grey", linestyle=":", linewidth=1, label="accuracy of guessing")
    shares = np.concatenate([fit.figures[:, :2].ravel(), fit.scoring.fit, fit.accuracy.fit, fit.values])
    axes.set_ylim(min(0.0, shares.min()) - 0.05, shares.max() + 0.06)
    axes.set_xlim(fit.x[0] - 0.02, fit.x[-1] + 0.02)
    axes.set_xlabel("share of scoring data" if fit.axis == "scoring" else "quality data among the interpreting data")
    axes.grid(alpha=0.25)
    axes.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=3, frameon=False)
    axes.set_title(f"chosen {chosen:.0%}, tied {low:.0%} to {high:.0%}", fontsize=10)


def _places(fit: Fit) -> np.ndarray:
    """Where the trials stand on the axis."""
    if fit.axis == "scoring":
        return fit.points[:, 0]
    return fit.points[:, 1] / fit.points[:, 1:].sum(axis=1)


def _baselines(axes: Any, report: Report) -> None:
    """Mixtures that are not on the line stand at their scoring share, as open marks."""
    for mark, (name, point) in zip("sD", report.design.baselines().items(), strict=True):
        members = [trial for trial in report.trials if trial.point == point]
        if not members:
            continue
        means = figures_of(members).mean(axis=0)
        for number, color in enumerate(COLORS.values()):
            told = {"label": f"{name} mixture"} if number == 0 else {}
            axes.plot(point[0], means[number], mark, markersize=9, fillstyle="none", color=color, **told)


def _triangle(figure: Any, axes: Any, fit: Fit, report: Report) -> None:
    corners = np.array([[0.5, np.sqrt(3) / 2], [0.0, 0.0], [1.0, 0.0]])
    places, trials = fit.candidates @ corners, fit.points @ corners
    shown = np.maximum(fit.values, -0.2)  # the objective constrained is far below where scoring is too low
    filled = axes.tricontourf(places[:, 0], places[:, 1], shown, levels=14, cmap="viridis")
    figure.colorbar(filled, ax=axes, shrink=0.75, label=f"objective ({report.objective.name})")
    axes.plot(*places[fit.tied].T, ".", color="white", markersize=4, label="tied with the best (95%)")
    axes.plot(*trials.T, "o", color="black", markersize=6, markeredgecolor="white", label="trials")
    axes.plot(*places[fit.best], "*", color="#d55e00", markersize=16, markeredgecolor="white", label="best")
    chosen = np.array(report.choice.point) @ corners
    axes.plot(*chosen, "P", color="#009e73", markersize=13, markeredgecolor="white", label="chosen")
    for mark, (name, point) in zip("sD", report.design.baselines().items(), strict=True):
        where = np.array(point) @ corners
        axes.plot(*where, mark, markersize=11, fillstyle="none", color="#d55e00", label=name)
    for (x, y), name, shift in zip(corners, report.groups, (0.05, -0.07, -0.07), strict=True):
        axes.text(x, y + shift, f"{name} only", ha="center", va="center")
    axes.set_aspect("equal")
    axes.axis("off")
    axes.set_ylim(-0.12, 0.95)
    axes.legend(fontsize=8, loc="upper left", facecolor="#c8c8c8")
