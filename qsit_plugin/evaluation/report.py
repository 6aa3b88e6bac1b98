"""An accuracy result as Markdown, for a README, an issue or a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

LISTED = 20
"""Failed images that the Markdown names; the JSON names all."""

_NOTES = """\
SRCC, PLCC and KRCC are of the raw scores; "fitted" figures are after a four-parameter logistic fit to these very
ratings. Signs are turned so that agreement is positive. In brackets: 95% bootstrap intervals over source images.
Figures of different datasets are on different scales and must not be pooled."""


def markdown(result: dict[str, Any]) -> str:
    """The result of ``accuracy.result_of``: a main table, one by distortion where there are types, and what failed."""
    about, metrics = result["dataset"], result["metrics"]
    split = "" if about["split"] == "all" else f", {about['split']} split"
    lines = [f"# Accuracy on {about['title']}{split}", "", f"{_count(about)} Ratings: {about['scale']}.", ""]
    lines += _main_table(metrics)
    kinds = list(dict.fromkeys(kind for figures in metrics.values() for kind in figures["by_distortion"]))
    if kinds:
        lines += ["", "## SRCC by distortion", "", *_distortion_table(metrics, kinds)]
    return "\n".join([*lines, *_troubles(result), "", *_NOTES.splitlines()]) + "\n"


def _count(about: dict[str, Any]) -> str:
    if about["expected_n"] is None or about["n"] == about["expected_n"]:
        return f"{about['n']:,} images."
    return f"**Partial: {about['n']:,} of {about['expected_n']:,} images.**"


def _main_table(metrics: dict[str, dict[str, Any]]) -> list[str]:
    header = ("metric", "n", "SRCC", "PLCC", "KRCC", "PLCC fitted", "RMSE fitted", "failed")
    rows = [
        (
            name,
            f"{figures['n']:,}",
            _with_interval(figures, "srcc"),
            _with_interval(figures, "plcc"),
            _figure(figures["krcc"]),
            _figure(figures["plcc_logistic4"]),
            _figure(figures["rmse_logistic4"]),
            str(len(figures["failed"])),
        )
        for name, figures in metrics.items()
    ]
    return _table(header, rows)


def _distortion_table(metrics: dict[str, dict[str, Any]], kinds: Sequence[str]) -> list[str]:
    rows = []
    for kind in kinds:
        cells = [figures["by_distortion"].get(kind, {"n": 0, "srcc": None}) for figures in metrics.values()]
        rows.append((kind, str(max(cell["n"] for cell in cells)), *(_figure(cell["srcc"]) for cell in cells)))
    return _table(("distortion", "n", *metrics), rows)


def _troubles(result: dict[str, Any]) -> list[str]:
    lines = [f"- {name} did not run: {reason}" for name, reason in result["unavailable_metrics"].items()]
    for name, figures in result["metrics"].items():
        lines += [
            f"- {name}: {figures[key]}" for key in ("error", "logistic4_error", "intervals_error") if key in figures
        ]
        lines += [f"- {name}: some scores are not in the released mode: {mode}" for mode in figures.get("modes", ())]
        failed = figures["failed"]
        lines += [f"- {name}: {item['image']}: {item['error']}" for item in failed[:LISTED]]
        if len(failed) > LISTED:
            lines.append(f"- {name}: and {len(failed) - LISTED} more images, all in the JSON")
    missing = result["dataset"]["missing_images"]
    if missing:
        lines.append(
            f"- {len(missing)} images are missing: {', '.join(missing[:5])}{' ...' if len(missing) > 5 else ''}"
        )
    return ["", "## What went wrong", "", *lines] if lines else []


def _with_interval(figures: dict[str, Any], name: str) -> str:
    ends = (figures.get("intervals") or {}).get(name)
    return _figure(figures[name]) + (f" [{ends[0]:.3f}, {ends[1]:.3f}]" if ends else "")


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The first column is left-aligned, the others are numbers."""
    marks = ["---", *["---:"] * (len(header) - 1)]
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in (header, marks, *rows)]
