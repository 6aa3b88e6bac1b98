"""How well scores agree with human ratings on one dataset: resumable scoring, then the statistics.

Scores on different datasets are never pooled: a result is about one dataset, and its scale is that dataset's.
"""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, Sequence
from pathlib import Path
from typing import Any

from .datasets.locate import locate
from .datasets.published import Ratings
from .datasets.ratings import DatasetError, RatedImage
from .datasets.votes import brier, expected_calibration_error
from .figures import by_column, correlate, figures_of
from .journal import Journal
from .scorers import Scorer

Pair = tuple[RatedImage, Path]


def pair_images(ratings: Ratings, folder: str | Path, *, partial: bool = False) -> tuple[list[Pair], list[str]]:
    """The rows with their files, and the names of the images that are missing.

    Raises DatasetError for missing images, unless ``partial``, and where none is there.
    """
    files = locate(folder, ratings.rows)
    pairs = [(row, file) for row, file in zip(ratings.rows, files, strict=True) if file is not None]
    missing = [row.image for row, file in zip(ratings.rows, files, strict=True) if file is None]
    if missing and (not partial or not pairs):
        cure = "; to evaluate the others, give --partial" if pairs else "; is --images the right folder?"
        named = ", ".join(missing[:5]) + (" ..." if len(missing) > 5 else "")
        raise DatasetError(f"{len(missing):,} of {len(files):,} images are not in {folder}: {named}{cure}")
    return pairs, missing


def open_journal(path: str | Path, ratings: Ratings, folder: str | Path) -> Journal:
    """The journal of a run on these ratings and this image folder (KonIQ comes in two sizes, which score differently).

    Raises JournalError where it belongs to another run.
    """
    about = {"name": ratings.name, "annotations": ratings.fingerprint, "images": str(Path(folder).resolve())}
    return Journal(path, about)


def unscored(scorer: Scorer, pairs: Sequence[Pair], journal: Journal) -> list[Pair]:
    """The pairs that the journal has no score of this metric for, or one of a file that was replaced since.

    Raises JournalError where the metric is not the one that the journal's scores come from.
    """
    journal.begin(scorer.name, scorer.fingerprint)
    done = journal.done(scorer.name) - {row.image for row, _ in changed(scorer, pairs, journal)}
    return [(row, file) for row, file in pairs if row.image not in done]


def changed(scorer: Scorer, pairs: Sequence[Pair], journal: Journal) -> list[Pair]:
    """The pairs with a score in the journal whose file has another size or time now.

    A score without them (of an earlier version of this package) counts as unchanged: see ``unchecked``.
    """
    entries = journal.entries.get(scorer.name, {})
    found = []
    for row, file in pairs:
        held = entries.get(row.image, {})
        if "score" in held and "mtime_ns" in held and not held.items() >= _stamp(file):
            found.append((row, file))
    return found


def unchecked(scorer: Scorer, pairs: Sequence[Pair], journal: Journal) -> int:
    """How many of the scores say nothing of their files: whether these were replaced since cannot be seen."""
    entries = journal.entries.get(scorer.name, {})
    return sum("score" in entries.get(row.image, {}) and "mtime_ns" not in entries[row.image] for row, _ in pairs)


def _stamp(file: Path) -> ItemsView[str, int]:
    """Size and time of change, as the journal keeps them: a hash would read every image again on each start."""
    try:
        about = file.stat()
    except OSError:  # it went away since it was found; reading it says so
        return {"size": -1, "mtime_ns": -1}.items()
    return {"size": about.st_size, "mtime_ns": about.st_mtime_ns}.items()


def score_pairs(scorer: Scorer, pairs: Sequence[Pair], journal: Journal) -> Iterator[tuple[RatedImage, dict[str, Any]]]:
    """Score, writing each outcome (``{"score": …}`` or ``{"error": …}``) to the journal at once, then yielding it."""
    stamps: list[ItemsView[str, int]] = []

    def files() -> Iterator[Path]:
        for _, file in pairs:
            stamps.append(_stamp(file))  # before it is read: a file that is replaced meanwhile is scored again
            yield file

    for number, ((row, _), outcome) in enumerate(zip(pairs, scorer.outcomes(files()), strict=True)):
        journal.write(scorer.name, row.image, {**outcome, **dict(stamps[number])})
        yield row, outcome


def summarize(
    scorer: Scorer,
    rows: Sequence[RatedImage],
    journal: Journal,
    *,
    resamples: int = 1000,
    seed: int = 0,
    group_by: Sequence[str] = (),
) -> dict[str, Any]:
    """One metric's figures on the rows that have a score.

    Correlations are with ``quality``, and the sign of a lower-is-better metric is turned, so that agreement is
    positive for every metric on every dataset. ``intervals``: 95% percentile bootstrap over ``source`` groups.
    ``by_distortion``: the same correlations within each type. ``by_group``: ``figures.by_column`` of each column of
    ``group_by``. ``without_twins``: where some rows have twins in another split, the figures on the others. A figure
    that is not defined is None, and a key ending in ``error`` says why. ``failed``: the images without a score, each
    with its reason. ``fingerprints``, ``modes``: those of the scores, where they have them.
    """
    entries = journal.entries.get(scorer.name, {})
    scored = [row for row in rows if "score" in entries.get(row.image, {})]
    sign = -1.0 if scorer.lower_is_better else 1.0
    predicted = [sign * entries[row.image]["score"] for row in scored]
    result: dict[str, Any] = {
        "lower_is_better": scorer.lower_is_better,
        **figures_of(predicted, scored, resamples, seed),
        **_vote_agreement(entries, scored),
        "by_distortion": _by_distortion(predicted, scored),
        "by_group": {column: by_column(predicted, scored, column, resamples, seed) for column in group_by},
        **_without_twins(predicted, scored, group_by, resamples, seed),
        "failed": [
            {"image": row.image, "error": entries.get(row.image, {}).get("error", "not scored")}
            for row in rows
            if "score" not in entries.get(row.image, {})
        ],
        "fingerprint": scorer.fingerprint,
    }
    for key in ("fingerprint", "mode"):
        if found := sorted({entries[row.image][key] for row in scored if key in entries[row.image]}):
            result[f"{key}s"] = found
    return result


def _vote_agreement(entries: dict[str, dict[str, Any]], rows: Sequence[RatedImage]) -> dict[str, float]:
    """Empty where a row has no votes or a score no distribution: part of the images would be another dataset."""
    levels = [entries[row.image]["levels"] for row in rows if "levels" in entries[row.image]]
    votes = [row.votes for row in rows if row.votes is not None]
    if not rows or len(levels) < len(rows) or len(votes) < len(rows):
        return {}
    return {"brier": brier(levels, votes), "ece": expected_calibration_error(levels, votes)}


def _by_distortion(predicted: Sequence[float], rows: Sequence[RatedImage]) -> dict[str, Any]:
    table = {}
    for kind in dict.fromkeys(row.distortion for row in rows if row.distortion):
        members = [i for i, row in enumerate(rows) if row.distortion == kind]
        table[kind] = correlate([predicted[i] for i in members], [rows[i] for i in members])
    return table


def _without_twins(
    predicted: Sequence[float], rows: Sequence[RatedImage], group_by: Sequence[str], resamples: int, seed: int
) -> dict[str, Any]:
    """Empty where no row has a twin in another split."""
    alone = [i for i, row in enumerate(rows) if not row.twins]
    if len(alone) == len(rows):
        return {}
    scores, kept = [predicted[i] for i in alone], [rows[i] for i in alone]
    by_group = {column: by_column(scores, kept, column, resamples, seed) for column in group_by}
    return {"without_twins": {**figures_of(scores, kept, resamples, seed), "by_group": by_group}}


def result_of(
    ratings: Ratings,
    metrics: dict[str, dict[str, Any]],
    unavailable: dict[str, str],
    missing: Sequence[str],
    *,
    resamples: int,
    seed: int,
) -> dict[str, Any]:
    """The whole result, JSON-ready: what was evaluated on what, and every figure."""
    from qsit_plugin import __version__
    from qsit_plugin.engines.installed import versions

    return {
        "dataset": {
            "name": ratings.name,
            "title": ratings.title,
            "scale": ratings.scale,
            "split": ratings.split,
            "n": len(ratings.rows) - len(missing),
            "expected_n": ratings.expected,
            "missing_images": list(missing),
            "ratings_sha256": ratings.fingerprint,
            "torn_sources": ratings.torn,
            "note": ratings.note,
        },
        "metrics": metrics,
        "unavailable_metrics": unavailable,
        "bootstrap": {"resamples": resamples, "seed": seed, "confidence": 0.95, "unit": "source image"},
        "versions": {"qsit-plugin": __version__, **versions()},
    }
