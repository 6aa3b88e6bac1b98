"""Where the KV cache of an image is kept: from the second question on, the image costs no pass of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .base import Engine


class PrefixCache:
    """The prefix of one image, by engine. It holds as much memory as a Look says, until it is dropped."""

    def __init__(self, image_tokens: Callable[[Engine], Any]):
        """``image_tokens``: what an engine sees in the image, see ``Engine.encode``."""
        self._image_tokens = image_tokens
        self._kept: dict[Engine, tuple[tuple[int, ...], Any]] = {}

    def prefix(self, before: tuple[int, ...], engine: Engine) -> Any:
        """The prefix after the tokens ``before``. A prompt that begins otherwise than the first one (a template that
        puts the text first) gets one of its own, which is not kept."""
        kept = self._kept.get(engine)
        if kept is not None and kept[0] == before:
            return kept[1]
        made = engine.prefill(before, self._image_tokens(engine))
        self._kept.setdefault(engine, (before, made))
        return made
