"""Scorer: what a host with many images holds. It can be pickled, and gives one record an image whatever the image."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from qsit_plugin.engines.batches import SCORING, Item, in_batches
from qsit_plugin.errors import NonFiniteError
from qsit_plugin.protocol import profile_name
from qsit_plugin.scores import error_record, score_row

if TYPE_CHECKING:
    from qsit_plugin.model import QSiT

_MODELS: dict[str, QSiT] = {}
"""Loaded models by their settings. Of the process, not of a Scorer: hosts send a new pickle with every task."""

_LOADING = threading.Lock()


class Scorer:
    """Scores images with one model, which is loaded when the first image comes, once in each process.

    Args:
        model: as ``name`` of ``qsit_plugin.load``: ``"qsit-nano"``, ``"qsit-mini"``, ``"qsit"``, a folder, a Hub id.
        settings: further arguments of ``qsit_plugin.load``. Those that are pickled must be picklable.

    A record is a row of ``qsit score --format jsonl`` without its path: ``score`` in [0, 1], ``level``,
    ``probabilities``, and so on. Of an image that cannot be scored it is ``{"error": {"type": …, "message": …}}``; no
    number stands in for it, and no exception ends the images behind it. What no image is to blame for does raise: a
    checkpoint that cannot be loaded (as ``load``), a device that fails.
    """

    def __init__(self, model: str = "qsit-nano", **settings: Any):
        self.name, self.settings = model, settings
        self._opened: QSiT | None = None

    @classmethod
    def of(cls, model: QSiT, name: str, **settings: Any) -> Scorer:
        """Around a model that is open already; ``name`` and ``settings`` are those that opened it."""
        scorer = cls(name, **settings)
        scorer._opened = model
        return scorer

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": None}

    def __repr__(self) -> str:
        return f"Scorer({', '.join([repr(self.name), *(f'{key}={value!r}' for key, value in self.settings.items())])})"

    @property
    def model(self) -> QSiT:
        """The loaded model. Raises as ``qsit_plugin.load``."""
        if self._opened is None:
            with _LOADING:
                if repr(self) not in _MODELS:
                    import qsit_plugin

                    _MODELS[repr(self)] = qsit_plugin.load(self.name, **self.settings)
                self._opened = _MODELS[repr(self)]
        return self._opened

    def record(self, image: Any) -> dict[str, Any]:
        """The record of one image: a path, the bytes of an image file, or anything else that ``score`` takes."""
        return self.records([image])[0]

    def records(self, images: Iterable[Any]) -> list[dict[str, Any]]:
        """Records in the order of the images."""
        return list(self.iter_records(images))

    def iter_records(self, images: Iterable[Any]) -> Iterator[dict[str, Any]]:
        """Records in the order of the images, lazily: a few images are opened ahead, in true batches.

        Raises TypeError for a single image.
        """
        model = self.model
        profile = model.profile
        prompt = model.prompt(profile.question, profile.answer_prefix)
        results = in_batches(model, prompt, images, self._batch, SCORING, errors="return", returned=(Exception,))
        for result in results:
            yield error_record(result) if isinstance(result, Exception) else result

    def _batch(self, items: list[Item]) -> list[dict[str, Any]]:
        """One batch. Where it fails through one of its images, the others are scored without that one."""
        from qsit_plugin.engines.level_logits import read_items, to_score

        model = self.model
        prompt = model.prompt(model.profile.question, model.profile.answer_prefix)
        name = profile_name(model.profile, self.settings.get("profile"))
        try:
            readings = read_items(model, prompt, items)
        except NonFiniteError as error:
            if len(items) == 1:
                return [error_record(error)]
            return [record for item in items for record in self._batch([item])]
        except model.engine.memory_errors as error:
            if len(items) > 1:
                raise  # in_batches halves the batch
            width, height = items[0].size
            return [error_record(type(error)(f"out of memory on {model.engine.place} with {width}x{height} pixels"))]
        rows = [score_row("", to_score(model, reading).to_dict(), name) for reading in readings]
        return [{key: value for key, value in row.items() if key != "path"} for row in rows]
