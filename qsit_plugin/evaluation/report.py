"""An accuracy result as Markdown, for a README, an issue or a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

LISTED = 20
"""Failed images that the Markdown names; the JSON names all."""

_NOTES = """\
SRCC, PLCC and KRCC are of the raw scores; "fitted" figures are after a four-parameter logistic fit to these very
ratings. Signs are turned so that agreement is positive. In brackets: 95% bootstrap intervals over sources.
Figures of different datasets are on different scales and must not be pooled."""


def markdown(result: dict[str, Any]) -> str:
    """The result of ``accuracy.result_of``: a main table, one by distortion where there are types, and what failed."""
    about, metrics = result["dataset"], result["metrics"]
    split = "" if about["split"] == "all" else f", {about['split']} split"
    lines = [f"# Accuracy on {about['title']}{split}", "", f"{_count(about)} Ratings: {about['scale']}.", ""]
    lines += [" ".join([about["note"], *_torn(about)]).strip(), ""] if about["note"] or about["torn_sources"] else []
    lines += _main_table(metrics)
    lines += [
        f"\n{name}, level distribution against the shares of human votes: Brier score {figures['brier']:.3f}, "
        f"expected calibration error {figures['ece']:.3f}."
        for name, figures in metrics.items()
        if "brier" in figures
    ]
    lines += _groups(metrics)
    apart = {name: figures["without_twins"] for name, figures in metrics.items() if "without_twins" in figures}
    if apart:
        lines += ["", "## Without the images that have a near twin in another split", "", *_main_table(apart)]
        lines += _groups(apart, ", without near twins")
    if kinds := _srcc_rows([figures["by_distortion"] for figures in metrics.values()]):
        lines += ["", "## SRCC by distortion", "", *_table(("distortion", "n", *metrics), kinds)]
    return "\n".join([*lines, *_failures(result), "", *_NOTES.splitlines()]) + "\n"


def _count(about: dict[str, Any]) -> str:
    if about["expected_n"] is None or about["n"] == about["expected_n"]:
        return f"{about['n']:,} images."
    return f"**Partial: {about['n']:,} of {about['expected_n']:,} images.**"


def _torn(about: dict[str, Any]) -> list[str]:
    """A leak between splits, which no figure shows."""
    torn = about["torn_sources"]
    return [f"{torn:,} sources (photos or scenes) of this split have images in another split, too."] if torn else []


def _main_table(metrics: dict[str, dict[str, Any]]) -> list[str]:
    header: tuple[str, ...] = ("metric", "n", "SRCC", "PLCC", "KRCC", "PLCC fitted", "RMSE fitted", "failed")
    header = header if all("failed" in figures for figures in metrics.values()) else header[:-1]
    rows = [
        (
            name,
            f"{figures['n']:,}",
            _with_interval(figures, "srcc"),
            _with_interval(figures, "plcc"),
            _figure(figures["krcc"]),
            _figure(figures["plcc_logistic4"]),
            _figure(figures["rmse_logistic4"]),
            str(len(figures.get("failed", ()))),
        )[: len(header)]
        for name, figures in metrics.items()
    ]
    return _table(header, rows)


def _groups(metrics: dict[str, dict[str, Any]], condition: str = "") -> list[str]:
    """A table for every column: SRCC within each value, and the mean over values; by whatever metric has them."""
    lines = []
    for column in dict.fromkeys(column for figures in metrics.values() for column in figures["by_group"]):
        tables = {name: figures["by_group"][column] for name, figures in metrics.items()}
        rows = _srcc_rows([table["groups"] for table in tables.values()])
        means = [_bracketed(table["mean_srcc"], table["mean_srcc_interval"]) for table in tables.values()]
        rows.append((f"mean of {max(table['of'] for table in tables.values())}", "", *means))
        lines += ["", f"## SRCC by {column}{condition}", "", *_table((column, "n", *tables), rows), ""]
        first = next(iter(tables.values()))
        if first["value_alone"] is not None:
            lines.append(f"A baseline that knows only the {column} of an image has SRCC {first['value_alone']:.3f}.")
        if first["without_value"]:
            lines.append(f"{first['without_value']:,} images have no {column} and are left out.")
    return lines


def _srcc_rows(tables: Sequence[dict[str, Any]]) -> list[tuple[str, ...]]:
    """A row for every value that a table has: most images, then SRCC by metric."""
    rows = []
    for value in dict.fromkeys(value for table in tables for value in table):
        cells = [table.get(value, {"n": 0, "srcc": None}) for table in tables]
        rows.append((value, str(max(cell["n"] for cell in cells)), *(_with_interval(cell, "srcc") for cell in cells)))
    return rows


def _failures(result: dict[str, Any]) -> list[str]:
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
    return _bracketed(figures[name], (figures.get("intervals") or {}).get(name))


def _bracketed(value: float | None, ends: Sequence[float] | None) -> str:
    return _figure(value) + (f" [{ends[0]:.3f}, {ends[1]:.3f}]" if ends else "")


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The first column is left-aligned, the others are numbers."""
    marks = ["---", *["---:"] * (len(header) - 1)]
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in (header, marks, *rows)]
