"""``qsit bench calibrate``: map a model's scores to the MOS scale of a database."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .. import options
from ..failures import WRONG_USAGE, ending_bench, note, stop

if TYPE_CHECKING:
    from qsit_plugin.protocol import ScoreProfile

KIND = "logistic4"


def calibrate(
    scores: Annotated[Path, typer.Argument(metavar="SCORES.csv", help="One row a photo: score, MOS and split.")],
    scale: Annotated[str, typer.Option(help="Name of the scale, for example koniq: Score.on(NAME) asks for it.")],
    out: Annotated[
        str | None, typer.Option("--out", "-o", metavar="FILE", help="Profile to write or extend; none: report only.")
    ] = None,
    kind: Annotated[str, typer.Option(help="Kind of the map to store: logistic4 or isotonic.")] = KIND,
    range: Annotated[
        tuple[float, float] | None,
        typer.Option(metavar="LOW HIGH", help="Ends of the MOS scale; by default those of the validation ratings."),
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Checkpoint that made the scores; --out extends its profile.")
    ] = None,
    profile: options.Profile = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a scale of this name in --out.")] = False,
    score_column: Annotated[str, typer.Option(help="Name of the column of scores.")] = "score",
    mos_column: Annotated[str, typer.Option(help="Name of the column of ratings; higher must be better.")] = "mos",
    split_column: Annotated[str, typer.Option(help="Name of the column of splits.")] = "split",
) -> None:
    """Fit a map from score to MOS on the validation rows; report on the test rows.

    Both kinds of map are reported; --kind chooses which one --out stores. Then score with it: qsit_plugin.load(...,
    profile=FILE).score(photo).on(SCALE). One database and one model at a time: scores on different scales are never
    pooled, and a CSV that holds several is refused.
    """
    from .. import output

    output.check_target(out, [scores])
    with ending_bench():
        from qsit_plugin.evaluation import calibration
        from qsit_plugin.evaluation.rated_scores import read_rated_scores

        if kind not in calibration.KINDS:
            stop(f"no calibration of kind {kind!r}: give one of {', '.join(calibration.KINDS)}", WRONG_USAGE)
        base = None if out is None else _base_profile(out, model, profile)
        rows = read_rated_scores(scores, score=score_column, mos=mos_column, split=split_column)
        if out is not None and model is not None:
            _check_weights(scores, rows.fingerprint, model)
        entries, report = calibration.calibrate(
            rows.scores, rows.mos, rows.split, range=range, fingerprint=rows.fingerprint
        )
        if rows.left_out:
            note(f"{rows.left_out} rows without a score or MOS are left out")
        note(f"fitted on {rows.split.count(calibration.FIT_SPLIT)} validation rows of {scale}; figures on test rows:")
        typer.echo("\n".join(report_lines(report)))
        if out is not None:
            path = calibration.save_scale(out, scale, entries[kind], base=base, overwrite=overwrite)
            note(f"scale {scale!r} ({kind}) written: {path}; use it with --profile {path}")


def report_lines(report: dict[str, dict[str, Any]]) -> list[str]:
    """The report as aligned columns: map, n, SRCC, PLCC, RMSE in MOS units."""
    lines = [f"{'map':<10}{'n':>7}{'SRCC':>8}{'PLCC':>8}{'RMSE':>9}"]
    for name, figures in report.items():
        srcc, plcc = ("-" if figures[key] is None else f"{figures[key]:.3f}" for key in ("srcc", "plcc"))
        lines.append(f"{name:<10}{figures['n']:>7}{srcc:>8}{plcc:>8}{figures['rmse']:>9.3f}")
    return lines


def _check_weights(scores: Path, made_by: str | None, model: str) -> None:
    """End with status 2 where the table says that other weights made its scores. An older table does not say it."""
    from qsit_plugin.weights import resolve
    from qsit_plugin.weights.fingerprint import fingerprint

    if made_by is not None and made_by != (found := fingerprint(resolve(model))):
        stop(
            f"{scores} holds scores of the weights {made_by}, those of {model} are {found}: score again with {model}, "
            "or give the --model that made the scores; where an adapter did, give its qsit.json as --profile instead",
            WRONG_USAGE,
        )


def _base_profile(out: str, model: str | None, profile: str | None) -> ScoreProfile | None:
    """The profile that the scores were read with; None where an existing file has it and the user names none."""
    from qsit_plugin.protocol import profile_for
    from qsit_plugin.weights import resolve

    if model is None and profile is None:
        if not Path(out).exists():
            stop(f"{out} is new: give the --model that made the scores, for its profile to be extended", WRONG_USAGE)
        return None
    return profile_for("." if model is None else resolve(model), profile)
