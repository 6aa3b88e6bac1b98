"""The last check of a load: a checkpoint that brings golden scores must give them. Damage that no other check can see,
a flipped bit among the weights, shows here."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from qsit_plugin.errors import NonFiniteError, WeightsError
from qsit_plugin.weights.catalogue import NANO
from qsit_plugin.weights.golden import FILE_NAME, judge, read_goldens
from qsit_plugin.weights.verified import is_verified, remember, state

from ..images.reading import ImageError

if TYPE_CHECKING:
    from ..model import QSiT

log = logging.getLogger("qsit_plugin")


def is_unverified(folder: Path) -> bool:
    """Whether a checkpoint brings golden scores that it has not yet been held against in this state of its files.

    Never for the packaged model, which the tests of a release check.
    """
    if not (folder / FILE_NAME).is_file() or folder.resolve() == NANO:
        return False
    return not is_verified(_state(folder))


def check_goldens(model: QSiT) -> None:
    """Score the images of the folder's ``golden.json``, once for each state of its files (see verified.py).

    ``model``: opened without adapter, profile, limits or quantized weights, under which golden scores do not hold.

    Raises WeightsError for a score that is off by more than 0.05, which no dtype and no machine explains, for level
    logits that are not finite, and for a golden.json or an image of it that cannot be read. A smaller difference that
    rounding does not explain is warned of in the log, at every load.
    """
    folder = model.folder
    if not is_unverified(folder):
        return
    path, drifted = folder / FILE_NAME, False
    for golden in read_goldens(path):
        if golden.image is None:
            continue
        try:
            score = model.score(golden.image).value
        except NonFiniteError as error:
            raise WeightsError(f"{folder} is damaged ({error}); download or copy the checkpoint again") from error
        except ImageError as error:
            raise WeightsError(f"{path} names an image that cannot be read ({error}); copy the folder again") from error
        verdict = judge(score, golden)
        if verdict == "broken":
            raise WeightsError(
                f"{folder} is damaged: {golden.image.name} scores {score:.4f}, not {golden.score:.4f} as {FILE_NAME} "
                f"says. Copy the checkpoint again; where its weights were meant to change, delete {FILE_NAME}"
            )
        if verdict == "drift":
            drifted = True
            log.warning(
                "%s: %s scores %.4f, not %.4f as %s says, more than rounding explains: see qsit weights verify",
                *(folder, golden.image.name, score, golden.score, FILE_NAME),
            )
    if not drifted:
        remember(_state(folder))


def _state(folder: Path) -> str:
    try:
        return state(folder)
    except OSError as error:
        raise WeightsError(f"{folder} cannot be listed ({error}); copy the checkpoint again") from error
