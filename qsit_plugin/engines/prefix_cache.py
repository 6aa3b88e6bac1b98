"""The KV cache of an image, kept from the first question for all further ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .base import Engine


class PrefixCache:
    """The prefix of one image, by engine. It holds as much memory as a Look says, until it is dropped."""

    def __init__(self) -> None:
        self._kept: dict[Engine, tuple[tuple[int, ...], tuple[str, str], Any]] = {}

    def prefix(self, before: tuple[int, ...], engine: Engine, image_tokens: Callable[[Engine], Any]) -> Any:
        """The prefix after the tokens ``before``. A prompt that begins otherwise than the first one (a template that
        puts the text first) gets a new one, which is not kept; the prefix of an engine whose model was since cast
        or moved is made anew.

        ``image_tokens``: what an engine sees in the image, see ``Engine.encode``. Given here and not kept: a Look whose
        own method it kept would be freed only when garbage is collected.
        """
        kept, form = self._kept.get(engine), (engine.place, engine.dtype_name)
        if kept is not None and kept[:2] == (before, form):
            return kept[2]
        made = engine.prefill(before, image_tokens(engine))
        if kept is None or kept[1] != form:
            self._kept[engine] = (before, form, made)
        return made
