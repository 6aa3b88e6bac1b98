"""What a mixture amounts to, before anything is trained: rows, shares and hashes of each source."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from qsit_plugin import __version__

from .mixture import Mixture


def plan_of(
    mixture: Mixture,
    *,
    count: int | None = None,
    shares: Mapping[str, float] | None = None,
    world_size: int = 1,
) -> dict[str, Any]:
    """The plan of a mixture's first epoch, JSON-ready.

    ``count``: rows an epoch, by default all chosen ones. ``shares``: of each source, by default by its rows. Of each
    source: ``rows`` is what its file has, ``chosen`` what the strategy takes, of these ``ratings`` are questions for a
    score, ``per_epoch`` is what an epoch has.
    """
    sampler = mixture.sampler(count=count, shares=shares, world_size=world_size)
    counts = sampler.counts()
    return {
        "seed": mixture.seed,
        "world_size": world_size,
        "rows_per_epoch": sampler.count,
        "sources": [
            {
                "name": source.name,
                "file": source.path.name,
                "strategy": source.strategy,
                "rows": source.size,
                "chosen": len(source.rows),
                "ratings": sum(row.task == "score" for row in source.rows),
                "per_epoch": counts[source.name],
                "share": counts[source.name] / sampler.count,
                "sha256": source.sha256,
                "selection_sha256": source.selection_sha256,
            }
            for source in mixture.sources
        ],
        "versions": {"qsit-plugin": __version__},
    }


def plan_lines(plan: dict[str, Any]) -> Iterator[str]:
    """The plan as aligned columns."""
    width = max(len(source["name"]) for source in plan["sources"])
    yield f"{'source':<{width}}  {'strategy':<12}{'rows':>10}{'chosen':>10}{'an epoch':>10}{'share':>8}  sha256"
    for source in plan["sources"]:
        numbers = f"{source['rows']:>10,}{source['chosen']:>10,}{source['per_epoch']:>10,}{source['share']:>8.1%}"
        yield f"{source['name']:<{width}}  {source['strategy']:<12}{numbers}  {source['sha256'][:12]}"
    chosen = sum(source["chosen"] for source in plan["sources"])
    rows = sum(source["rows"] for source in plan["sources"])
    numbers = f"{rows:>10,}{chosen:>10,}{plan['rows_per_epoch']:>10,}{1:>8.1%}"
    yield f"{'all':<{width}}  {'':<12}{numbers}  seed {plan['seed']}"
