"""A validation split held out of the training split, by source: no scene in both."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace

from .ratings import DatasetError, RatedImage


def hold_out(rows: Sequence[RatedImage], share: float) -> list[RatedImage]:
    """The rows, in order, with about this share of the training split turned into the split "validation".

    Whole sources are taken, in the order of the SHA-256 of their names, so that the same photos are held out
    everywhere; from every column ``subset`` by itself, until the share is reached; one that is too large for what is
    still missing is passed over. Where no row has a split, all count as training.

    Raises DatasetError for a share outside (0, 1), rows that have a validation split or no training split, and where no
    source is small enough for the share.
    """
    if not 0.0 < share < 1.0:
        raise DatasetError(f"the share that is held out must be between 0 and 1, got {share:g}")
    found = {row.split for row in rows if row.split is not None}
    if "validation" in found:
        raise DatasetError("there is a validation split already: take it with --split validation, without --holdout")
    if found and "training" not in found:
        raise DatasetError(f"there is no split 'training' to hold rows out of, only {', '.join(sorted(found))}")
    pool = [row for row in rows if row.split == "training"] if found else list(rows)
    held = _held_sources(pool, share)
    if not held:
        count = len({row.source for row in pool})
        raise DatasetError(f"no source of the {len(pool):,} rows is as small as {share:g} of them: there are {count:,}")

    def of(row: RatedImage) -> RatedImage:
        if found and row.split != "training":
            return row
        return replace(row, split="validation" if row.source in held else "training")

    return [of(row) for row in rows]


def _held_sources(pool: Sequence[RatedImage], share: float) -> set[str]:
    """Of every subset the first sources that fit into the share; a source counts where its first row is."""
    members: dict[str, int] = {}
    subset: dict[str, str] = {}
    for row in pool:
        members[row.source] = members.get(row.source, 0) + 1
        subset.setdefault(row.source, row.columns.get("subset", ""))
    held: set[str] = set()
    for name in sorted(set(subset.values())):
        sources = [source for source in members if subset[source] == name]
        wanted = round(share * sum(members[source] for source in sources))
        for source in sorted(sources, key=lambda source: hashlib.sha256(source.encode()).hexdigest()):
            if members[source] <= wanted:
                held.add(source)
                wanted -= members[source]
    return held


def torn_sources(rows: Sequence[RatedImage]) -> set[str]:
    """The sources that have rows in more than one split."""
    splits: dict[str, set[str]] = {}
    for row in rows:
        if row.split is not None:
            splits.setdefault(row.source, set()).add(row.split)
    return {source for source, found in splits.items() if len(found) > 1}


def check_whole(rows: Sequence[RatedImage]) -> None:
    """Raise DatasetError where a source has rows in more than one split."""
    torn = torn_sources(rows)
    if torn:
        first = next(row.source for row in rows if row.source in torn)
        splits = ", ".join(sorted({row.split for row in rows if row.source == first and row.split}))
        raise DatasetError(
            f"{len(torn):,} of {len({row.source for row in rows}):,} groups are in more than one split, the first is "
            f"{first} ({splits}): images of one group belong in one split; leave the split out and take --holdout"
        )
