"""Damaged profiles: a ``qsit.json`` with one thing wrong, in its checkpoint's folder or given as a separate file."""

from __future__ import annotations

from functools import cache, partial
from pathlib import Path
from typing import Any

from .byte_damage import byte_damages, file_damages
from .case import VALUES, Case, Damage, Family, chosen, rng_of
from .checkpoints import ALLOWED, healthy, read
from .json_damage import deletions, text_damages, value_damages, write_json
from .scoring import prepare, scored

NUMBER = {"short": 30, "long": 600}
NAME = "qsit.json"
__all__ = ["NUMBER", "case", "prepare", "profile"]

_SPECIAL: dict[str, dict[str, Any]] = {
    "weights NaN": {"weights": [float("nan")] * 5},
    "weights 1e308": {"weights": [1e308, 1e308, 0.5, 0.25, 0.0]},
    "weights beyond 1": {"weights": [5.0, 4.0, 3.0, 2.0, 1.0]},
    "weights negative": {"weights": [1.0, 0.5, 0.0, -0.5, -9.0]},
    "weights rising": {"weights": [0.0, 0.25, 0.5, 0.75, 1.0]},
    "weights equal": {"weights": [0.5] * 5},
    "weights as text": {"weights": ["1.0", "0.75", "0.5", "0.25", "0.0"]},
    "weights as one text": {"weights": "54321"},
    "weights by level": {"weights": {"excellent": 1, "good": 0.75, "fair": 0.5, "poor": 0.25, "bad": 0}},
    "weights true": {"weights": [True, 0.75, 0.5, 0.25, False]},
    "token ids beyond the vocabulary": {"level_token_ids": [10**6 + i for i in range(5)]},
    "token ids negative": {"level_token_ids": [-1, -2, -3, -4, -5]},
    "token ids as fractions": {"level_token_ids": [510.0, 352.0, 443.0, 350.0, 509.0]},
    "token ids as text": {"level_token_ids": ["510", "352", "443", "350", "509"]},
    "token ids as lists": {"level_token_ids": [[510], [352], [443], [350], [509]]},
    "token ids equal": {"level_token_ids": [510] * 5},
    "token ids of other words": {"level_token_ids": [352, 510, 443, 350, 509]},
    "six levels": {"level_words": [" excellent", " good", " fair", " poor", " bad", " awful"]},
    "level words as lists": {"level_words": [[" excellent"], [" good"], [" fair"], [" poor"], [" bad"]]},
    "level words as one text": {"level_words": "abcde"},
    "question with the image": {"question": "<image> How good is <image>?"},
    "question of a million words": {"question": " good" * 10**6},
    "question with control characters": {"question": "\x00\x1b[31m\u202e"},
    "answer prefix with the image": {"answer_prefix": "<image>"},
    "answer prefix of a million words": {"answer_prefix": " good" * 10**6},
    "scope of a million letters": {"scope": "a" * 10**6},
    "scale with the name of a plain one": {"scales": {"0-100": {"kind": "logistic4"}}},
    "scale without a name": {"scales": {"": {"kind": "isotonic", "parameters": [[0, 1], [0, 1]], "range": [0, 1]}}},
    "ten thousand scales": {"scales": {f"scale {i}": None for i in range(10**4)}},
}


def case(number: int, seed: int) -> Case:
    damages = chosen(families(), number, seed)
    apart = rng_of(number, seed).random() < 0.5
    label = "; ".join(damage.label for damage in damages) + (" (given by its path)" if apart else "")
    return Case(label, lambda folder: _run(folder, damages, apart, number, seed), ALLOWED)


def _run(folder: Path, damages: list[Damage], apart: bool, number: int, seed: int) -> str:
    checkpoint = healthy(folder)
    home = folder / "profile" if apart else checkpoint
    home.mkdir(exist_ok=True)
    write_json(home / NAME, profile())
    rng = rng_of(number, seed)
    for damage in damages:
        damage.apply(home, rng)
    return scored(folder, checkpoint, **({"profile": home / NAME} if apart else {}))


@cache
def families() -> dict[str, Family]:
    special = [Damage(f"{NAME}: {kind}", partial(_special, change)) for kind, change in _SPECIAL.items()]
    return {
        VALUES: Family(6, value_damages({NAME: profile()})),
        "special": Family(5, special),
        "left out": Family(1, deletions({NAME: profile()})),
        "broken text": Family(2, text_damages({NAME: profile()})),
        "bytes": Family(1, byte_damages([NAME])),
        "files": Family(1, file_damages([NAME])),
    }


@cache
def profile() -> dict[str, Any]:
    """The packaged model's profile with two calibrations, which it does not have."""
    logistic = {"kind": "logistic4", "parameters": [90.0, 10.0, 0.5, 0.2], "range": [0.0, 100.0]}
    isotonic = {"kind": "isotonic", "parameters": [[0.0, 0.4, 1.0], [1.0, 2.0, 5.0]], "range": [1.0, 5.0]}
    return read(NAME) | {"scales": {"koniq": logistic, "live": isotonic}}


def _special(change: dict[str, Any], folder: Path, _: Any) -> None:
    write_json(folder / NAME, profile() | change)
