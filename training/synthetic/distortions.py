"""Twenty synthetic distortions with a continuous strength: what qsit-nano learns to see, name and grade.

Every distortion has several renderings (JPEG and WebP, Gaussian and disc blur, …), so that the model learns the defect
and not one formula. Ranges follow the families of KADID-10k and ARNIQA, widened at both ends; the code is our own and
needs numpy and Pillow only. The renderings are in detail.py and tones.py, their properties in distortions.toml.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from . import detail, tones
from .vocabulary import DISTORTIONS, column

Rendering = Callable[[Image.Image, float, np.random.Generator], Image.Image]

KINDS = tuple(DISTORTIONS)
"""All names; every index into a distortion refers to this order."""

NAMES = KINDS[:10]
"""The ten by which nano is measured."""

_FUNCTIONS = vars(detail) | vars(tones)
APPLY: dict[str, Rendering] = {name: _FUNCTIONS[name.replace(" ", "_")] for name in KINDS}

HARM: dict[str, float] = column("harm")
"""How far the strongest rendering lowers the synthetic severity score, as a share of the whole scale."""

LOG_RANGE: dict[str, float] = column("log_range")
"""Largest over smallest extent (in pixels or grey levels), for the distortions that a smaller view hides."""

HALF_HIDDEN = tuple(column("half_hidden"))
"""What a smaller view hides less: half its size leaves seven tenths of the strength."""

NEEDS_COLOR = tuple(column("needs_color"))
"""What cannot be seen in a photo without colours."""

NEEDS_SHADES = tuple(column("needs_shades"))
"""What cannot be seen in a drawing of a few colours."""

CLEAN = 4.9
"""Severity score of a photo as it is: good photos have small faults too."""


@dataclass(frozen=True)
class Defect:
    """A distortion, and how much of it can be seen: its strength in [0, 1] as far as the view shows it."""

    name: str
    visible: float

    @property
    def harm(self) -> float:
        """The share of the scale that it costs; a trace of it costs something, none of it nothing."""
        return HARM[self.name] * (0.06 + 0.94 * self.visible**0.9) if self.visible > 0 else 0.0


def distort(image: Image.Image, name: str, strength: float, rng: np.random.Generator) -> Image.Image:
    """Render one distortion. ``strength`` in [0, 1]; ``rng`` picks the rendering and its noise.

    The same seed and another strength give the same rendering, stronger or weaker: a ladder.
    """
    if name not in APPLY:
        raise ValueError(f"unknown distortion {name!r}; known: {', '.join(KINDS)}")
    if not 0.0 <= strength <= 1.0:
        raise ValueError(f"strength must be in [0, 1], got {strength}")
    return APPLY[name](image, float(strength), rng)  # Pillow takes no numpy scalar


def visible_strength(name: str, strength: float, scale: float) -> float:
    """Strength that is left when the view shows the image at ``scale`` (1 = pixel for pixel, 0.5 = half size).

    Labels follow the view: a one-pixel blur is gone at half size, for people as for the model.
    """
    if scale >= 1.0:
        return strength
    if name in LOG_RANGE:
        return max(0.0, strength + np.log(scale) / np.log(LOG_RANGE[name]))
    return strength * scale**0.5 if name in HALF_HIDDEN else strength


def severity_score(defects: Sequence[Defect]) -> float:
    """The synthetic severity score on [1, 5], 5 = clean. It orders strengths; nobody gave it, so it is never "MOS".

    Each defect takes its share of what the others leave: two never cost more than the scale.
    """
    left = float(np.prod([1.0 - defect.harm for defect in defects]))
    return 1.0 + (CLEAN - 1.0) * left


def degraded(level: float, severity: float) -> float:
    """What is left of a photo's own level, on 1 to 5, under distortions of this severity score."""
    return 1.0 + (level - 1.0) * (severity - 1.0) / (CLEAN - 1.0)
