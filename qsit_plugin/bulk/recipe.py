"""What a score depends on beside the image. Two scores are pooled, and an image is not scored again, only under one."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from qsit_plugin.protocol import profile_name

if TYPE_CHECKING:
    from qsit_plugin.model import QSiT

PREPROCESSING = 1
"""To be raised with every change of decoding or resizing that moves scores; stored ones are then made anew."""


def recipe(model: QSiT, profile: Any = None) -> dict[str, Any]:
    """``key``: sixteen hexadecimal digits of the weights' fingerprint, the engine, the dtype, the profile and the
    preprocessing; beside it what rows say of them. ``profile``: as it was given to ``load``."""
    own, engine = model.profile, model.engine
    about = {
        "fingerprint": model.fingerprint,
        "engine": engine.name,
        "dtype": engine.dtype_name,
        "asked": [own.question, own.answer_prefix, own.level_words, own.level_token_ids, own.weights],
        "departures": model.departures(),
        "tiling": asdict(engine.tiling),
        "preprocessing": PREPROCESSING,
    }
    digits = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]
    shown = {name: about[name] for name in ("fingerprint", "engine", "dtype")}
    named = {"model": model.name, "profile": profile_name(own, profile), "mode": ", ".join(model.departures())}
    return {"key": digits, **named, **shown, "scope": own.scope, "scope_kind": own.kind}
