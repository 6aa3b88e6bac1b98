"""From five level logits to a Score: probabilities, value, spread, other scales, and the record that is written."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .images.errors import ImageError
from .protocol import LEVELS, kind_of_scope
from .scales import PLAIN_SCALES, apply_calibration

COLUMNS = (
    "path", "score", "level", *LEVELS, "std", "level_mass", "width", "height", "model", "fingerprint", "dtype",
    "engine", "profile", "mode", "scope", "scope_kind", "error",
)  # fmt: skip
"""The header of a csv: the keys of a row with the five probabilities spread out, and the error."""

LIMIT = "at most "
"""How a limit on tiles or tokens begins in ``mode`` (see limits.py). No stored calibration holds for such scores."""


@dataclass(frozen=True)
class Score:
    """What one look at an image says about its quality.

    ``value``: probability-weighted level in [0, 1], 1 = excellent. ``probabilities``: level -> probability, from
    excellent to bad, summing to 1. ``std``: standard deviation of the value under these probabilities, in [0, 0.5].
    ``entropy``: in nats, 0 to log 5. ``level_mass``: probability that the model put on the five words at all; far
    below 1 means that the prompt or the checkpoint is not what the profile expects. ``scope``: what the checkpoint was
    trained to predict. ``mode``: "released", or what changed the output (for example a re-run in bfloat16).
    ``width``, ``height``: of the image, in pixels. ``fingerprint``: of the weights, see ``QSiT.fingerprint``; scores of
    two are not to be pooled. ``scope_kind``: the scope for programs, one of ``protocol.SCOPE_KINDS``; derived from the
    scope where it is not given. ``engine``: what computed it, "torch" or "onnx"; their scores are the same within 1e-5.
    """

    value: float
    level: str
    probabilities: dict[str, float]
    std: float
    entropy: float
    level_mass: float
    scope: str
    model: str
    dtype: str
    mode: str = "released"
    width: int = 0
    height: int = 0
    scales: dict[str, dict[str, Any]] = field(default_factory=dict, repr=False, compare=False)
    fingerprint: str = ""
    scope_kind: str = ""
    engine: str = ""

    def __post_init__(self) -> None:
        if not self.scope_kind:
            object.__setattr__(self, "scope_kind", kind_of_scope(self.scope))

    @classmethod
    def from_logits(
        cls, logits: Sequence[float], weights: Sequence[float], *, level_mass: float, **about: Any
    ) -> Score:
        """Five finite logits, excellent to bad, and the weights of the levels. ``about``: the remaining fields."""
        top = max(logits)
        powers = [math.exp(logit - top) for logit in logits]
        shares = [power / sum(powers) for power in powers]
        value = sum(share * weight for share, weight in zip(shares, weights, strict=True))
        variance = sum(share * (weight - value) ** 2 for share, weight in zip(shares, weights, strict=True))
        return cls(
            value=value,
            level=LEVELS[max(range(len(LEVELS)), key=shares.__getitem__)],
            probabilities=dict(zip(LEVELS, shares, strict=True)),
            std=math.sqrt(variance),
            entropy=-sum(share * math.log(share) for share in shares if share > 0.0),
            level_mass=min(1.0, level_mass),
            **about,
        )

    def on(self, scale: str) -> float:
        """The value on another scale: "0-1", "0-5", "1-5", "0-100", or a database whose calibration is stored.

        Raises ValueError for a scale that is neither: a number on a database's scale without calibration is a guess;
        and for a database's whose calibration does not hold here: it was fitted to scores without limits on tiles and
        tokens, and to those of other weights where it says so.
        """
        if scale in PLAIN_SCALES:
            low, high = PLAIN_SCALES[scale]
            return low + (high - low) * self.value
        if scale in self.scales and LIMIT in self.mode:
            raise ValueError(
                f"the calibration for scale {scale!r} holds for scores without limits, this one is {self.mode!r}: load "
                f"{self.model} without max_tiles and max_image_tokens, or take {', '.join(PLAIN_SCALES)}"
            )
        if scale in self.scales:
            self._check_weights(scale)
            return apply_calibration(self.scales[scale], self.value)
        known = ", ".join([*PLAIN_SCALES, *self.scales])
        raise ValueError(f"{self.model} has no calibration for scale {scale!r}; it can give: {known}")

    def _check_weights(self, scale: str) -> None:
        """A calibration of an earlier version does not say to which weights it was fitted, and is applied."""
        fitted = self.scales[scale].get("fingerprint")
        if fitted is not None and self.fingerprint and fitted != self.fingerprint:
            raise ValueError(
                f"the calibration for scale {scale!r} was fitted to scores of the weights {fitted}, this one is of "
                f"{self.fingerprint} ({self.model}): fit it again with qsit bench calibrate, or take "
                f"{', '.join(PLAIN_SCALES)}"
            )

    def to_dict(self) -> dict[str, Any]:
        """The JSON-ready record of everything but the calibrations: ``score`` is the value, in [0, 1]; then the fields.

        ``value`` repeats ``score``. Deprecated: it was the only name before, and goes in the release after 0.1.0.
        """
        names = ("level", "probabilities", "std", "entropy", "level_mass", "scope", "model", "dtype", "mode")
        more = ("width", "height", "fingerprint", "scope_kind", "engine")
        fields = {name: getattr(self, name) for name in (*names, *more)}
        return {"score": self.value, **fields, "value": self.value}


@dataclass(frozen=True)
class Comparison:
    """Two scores, and how probable it is that people would prefer A.

    Thurstone's model on the two level distributions: the normal probability of a positive difference. The two images
    are judged apart; the model is never shown both at once.
    """

    score_a: Score
    score_b: Score

    @property
    def probability_a_better(self) -> float:
        """In [0, 1]; 0.5 where the scores are equal."""
        gap = self.score_a.value - self.score_b.value
        spread = math.hypot(self.score_a.std, self.score_b.std)
        if spread == 0.0:
            return 0.5 if gap == 0.0 else float(gap > 0.0)
        return 0.5 * (1.0 + math.erf(gap / spread / math.sqrt(2.0)))


def score_row(path: object, record: Mapping[str, Any], profile: str | None = None) -> dict[str, Any]:
    """What is written about one image: its path and a record of ``Score.to_dict()``, in the order of COLUMNS.

    ``profile``: how the score was asked for, as ``qsit score`` names it; left out where it is None.
    """
    known = record if profile is None else {**record, "profile": profile}
    names = dict.fromkeys("probabilities" if name in LEVELS else name for name in COLUMNS)
    return {"path": str(path)} | {name: known[name] for name in names if name in known}


def error_row(path: object, error: ImageError) -> dict[str, Any]:
    """The row of an input that failed."""
    return {"path": str(path), **error_record(error)}


def error_record(error: Exception) -> dict[str, Any]:
    """What is written in the place of a score, with the error's message on one line."""
    reason = error.reason if isinstance(error, ImageError) else " ".join(str(error).split())
    return {"error": {"type": type(error).__name__, "message": reason}}


def flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row without nesting, for csv: the probabilities and the error spread out, in the order of COLUMNS."""
    cells = {**row, **row.get("probabilities", {})}
    if "error" in row:
        cells["error"] = f"{row['error']['type']}: {row['error']['message']}"
    return {name: cells[name] for name in COLUMNS if name in cells}
