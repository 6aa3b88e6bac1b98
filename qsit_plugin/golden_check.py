"""The last check of a load: a checkpoint that brings golden scores must give them. Damage that no other check can see,
a flipped bit among the weights, shows here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qsit_plugin.weights.catalogue import NANO
from qsit_plugin.weights.errors import WeightsError
from qsit_plugin.weights.golden import FILE_NAME, judge, read_goldens
from qsit_plugin.weights.verified import is_verified, remember, state

from .finite import NonFiniteError
from .images import ImageError

if TYPE_CHECKING:
    from .model import QSiT


def check_goldens(model: QSiT) -> None:
    """Score the images of the folder's ``golden.json``, once for each state of its files (see verified.py).

    Not for the packaged model, which the tests of a release check; not where the golden scores do not hold: with an
    adapter, another profile, limits or quantized weights. The caller leaves those out, but for the limits and weights.

    Raises WeightsError for a score that is off by more than 0.05, which no dtype and no machine explains, for level
    logits that are not finite, and for a golden.json or an image of it that cannot be read.
    """
    folder = model.folder
    path = folder / FILE_NAME
    if not path.is_file() or folder.resolve() == NANO or model.departures():
        return
    try:
        known = state(folder)
    except OSError as error:
        raise WeightsError(f"{folder} cannot be listed ({error}); copy the checkpoint again") from error
    if is_verified(known):
        return
    for golden in read_goldens(path):
        if golden.image is None:
            continue
        try:
            score = model.score(golden.image).value
        except NonFiniteError as error:
            raise WeightsError(f"{folder} is damaged ({error}); download or copy the checkpoint again") from error
        except ImageError as error:
            raise WeightsError(f"{path} names an image that cannot be read ({error}); copy the folder again") from error
        if judge(score, golden) == "broken":
            raise WeightsError(
                f"{folder} is damaged: {golden.image.name} scores {score:.4f}, not {golden.score:.4f} as {FILE_NAME} "
                f"says. Copy the checkpoint again; where its weights were meant to change, delete {FILE_NAME}"
            )
    remember(known)
