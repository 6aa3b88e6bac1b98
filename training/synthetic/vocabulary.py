"""What is known of the distortions, and the words of qsit-nano's questions and answers: distortions.toml as tables."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from qsit_plugin import protocol

_FILE: dict[str, Any] = tomllib.loads(Path(__file__).with_name("distortions.toml").read_text(encoding="utf-8"))
DISTORTIONS: dict[str, dict[str, Any]] = _FILE["distortions"]


def column(key: str) -> dict[str, Any]:
    """One property of the distortions that have it, by their names."""
    return {name: row[key] for name, row in DISTORTIONS.items() if key in row}


SYNONYMS, ADJECTIVES, EVIDENCE = column("synonyms"), column("adjectives"), column("evidence")
KIND_OF: dict[str, str] = column("kind_of")
ALIKE = [set(pair) for pair in _FILE["alike"]]
ATTRIBUTE_OF: dict[str, list[str]] = _FILE["attributes"]
CLEAN_EVIDENCE, NAMING, WHAT, NONE = (_FILE["phrases"][key] for key in ("clean_evidence", "naming", "what", "none"))
DESCRIBE = [protocol.EXPLAIN, *_FILE["phrases"]["describe"]]
