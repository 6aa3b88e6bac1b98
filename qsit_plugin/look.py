"""Look: an encoded image, with its image tokens and its KV cache."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Unpack

from . import protocol
from .engines.prefix_cache import PrefixCache

if TYPE_CHECKING:
    from PIL import Image

    from .engines.base import Engine
    from .engines.generation import Answer, Writing
    from .model import QSiT
    from .scores import Score


class Look:
    """An encoded image: its image tokens and, after the first question, the KV cache that further questions share.

    Accepted wherever an image is. Holds memory (the KV cache of the image: 91 MB for a large photo on
    ``qsit-mini``, 426 MB on ``qsit``) until it is dropped. ``size``: (width, height) in pixels. ``image``: RGB.
    """

    def __init__(self, model: QSiT, image: Image.Image):
        self.model, self.size, self.image = model, image.size, image
        self._tokens = self._see(model.engine)
        self._cache = PrefixCache()

    def _see(self, engine: Engine) -> Any:
        return engine.begin(engine.tiling.cut(self.image), self.size)

    def prefix(self, before: tuple[int, ...], engine: Engine) -> Any:
        """The KV cache of the prompt's beginning and the image; see prefix_cache.py."""
        return self._cache.prefix(before, engine, self._image_tokens)

    def _image_tokens(self, engine: Engine) -> Any:
        return self._tokens if engine is self.model.engine else self._see(engine)

    @property
    def token_count(self) -> int:
        """Image tokens that it takes in the context."""
        return self.model.engine.tiling.token_count(*self.size)

    def score(self) -> Score:
        return self.model.score(self)

    def ask(self, question: str, **options: Unpack[Writing]) -> Answer:
        return self.model.ask(self, question, **options)

    def explain(self, **options: Unpack[Writing]) -> Answer:
        return self.model.explain(self, **options)

    def stream(self, question: str = protocol.EXPLAIN, **options: Unpack[Writing]) -> Iterator[str]:
        return self.model.stream(self, question, **options)

    def choose(self, question: str, options: Sequence[str]) -> list[float]:
        return self.model.choose(self, question, options)

    def attributes(self) -> dict[str, float]:
        return self.model.attributes(self)
