"""Graphs with Save with Score, and the tables that savers and folders write, also as older versions began them."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from tests.nodes.graphs import graph
from tests.nodes.helpers import batch, photo

PICTURES = batch(photo(0), photo(0, blur=True), photo(1))

OLDER = "path,score,level,excellent,good,fair,poor,bad,std,width,height,model,dtype,mode,scope,error\n"
"""The header of tables before rows had a fingerprint."""
WITHOUT_STATE = "path score level excellent good fair poor bad std width height model fingerprint dtype mode scope"
WITHOUT_STATE = (*WITHOUT_STATE.split(), "scope_kind", "error")
"""The header of tables before rows had size and time."""


def scored(kind: str, **inputs: Any) -> dict[str, Any]:
    """A node of a ``graph`` that takes its images and their scores."""
    return {"class_type": kind, "inputs": {"images": ["images", 0], "scores": ["score", 5]} | inputs}


def saver(**changes: Any) -> dict[str, Any]:
    inputs = {"filename_prefix": "t/%level%_%score%", "min_score": 0.0, "csv_file": "t/scores.csv"} | changes
    return graph(PICTURES) | {"save": scored("QSiT_SaveWithScore", **inputs)}


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))
