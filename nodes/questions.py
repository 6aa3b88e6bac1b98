"""The questions that Q-SiT Explain offers."""

from __future__ import annotations

from qsit_plugin.nodes.errors import InputError
from qsit_plugin.protocol import ATTRIBUTES, EXPLAIN

OWN = "own question"
PRESETS = {
    "describe the quality": EXPLAIN,
    "what is wrong": "What distortions are visible in this image?",
    "most visible distortion": "Which distortion is most visible in this image?",
    **ATTRIBUTES,
}


def question_for(preset: str, own: str) -> str:
    """The question to ask. Raises InputError for an unknown preset and for an empty own question."""
    if preset == OWN:
        if not own.strip():
            raise InputError(f"the question is empty: write one, or choose another preset than '{OWN}'")
        return own.strip()
    if preset not in PRESETS:
        raise InputError(f"preset must be one of {', '.join(PRESETS)}, {OWN}; got {preset!r}")
    return PRESETS[preset]
