"""The interface that our models and the baselines share, and our models behind it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from qsit_plugin.model import QSiT

NOT_THE_MODEL = ("qsit.json", "golden.json", "onnx.json")
"""Files beside a checkpoint that its network does not depend on; the profile is compared by itself."""


class Scorer(Protocol):
    """A metric that is ready to run."""

    name: str
    lower_is_better: bool
    fingerprint: dict[str, Any]
    """Everything that its scores depend on besides the image; JSON-ready."""

    def outcomes(self, paths: Iterable[Path]) -> Iterator[dict[str, Any]]:
        """``{"score": float}`` or ``{"error": str}`` of every image, in order.

        A model that has a level distribution adds ``"levels"``: five probabilities, excellent to bad. Ours add
        ``"fingerprint"``, as the rows of ``qsit score`` have it.
        """
        ...


class ModelScorer:
    """A Q-SiT checkpoint. A score that was not read in the released mode (a re-run in bfloat16) says so."""

    lower_is_better = False

    def __init__(self, model: QSiT):
        from qsit_plugin.limits import limits_of

        self.name = model.name
        self.model = model
        own = model.profile
        profile = [own.question, own.answer_prefix, own.level_words, own.level_token_ids, own.weights]
        self.fingerprint: dict[str, Any] = {
            "kind": "qsit",
            "weights": digest(model.folder),
            "adapter": None if model.adapter is None else digest(Path(model.adapter)),
            "dtype": str(model.dtype).removeprefix("torch."),
            "profile": hashlib.sha256(json.dumps(profile).encode()).hexdigest(),
        }
        if limits := limits_of(model.engine.tiling):
            self.fingerprint["limits"] = limits

    def outcomes(self, paths: Iterable[Path]) -> Iterator[dict[str, Any]]:
        from qsit_plugin.images.reading import ImageError

        for score in self.model.iter_scores(paths, errors="return"):
            if isinstance(score, ImageError):
                yield {"error": score.reason}
                continue
            outcome = {"score": score.value, "levels": [round(p, 6) for p in score.probabilities.values()]}
            outcome |= {"fingerprint": score.fingerprint, "engine": score.engine}
            yield outcome if score.mode == "released" else {**outcome, "mode": score.mode}


def digest(folder: Path) -> str:
    """SHA-256 over the weights and settings of a checkpoint: seconds for the 7B model, and any change shows."""
    total = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.suffix in (".safetensors", ".json", ".jinja") and path.name not in NOT_THE_MODEL:
            with open(path, "rb") as stream:
                total.update(path.name.encode() + hashlib.file_digest(stream, "sha256").digest())
    return total.hexdigest()
