"""Look: an image that a model has seen, and what it remembers of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from . import protocol

if TYPE_CHECKING:
    import torch
    from PIL import Image

    from .engines.generation import Answer
    from .engines.network import Network, Prefix
    from .model import QSiT
    from .scores import Score


class Look:
    """An image that was seen once: its tokens, and from the second question on its share of the language model's work.

    Accepted wherever an image is. Holds memory (the key-value cache of the image: 91 MB for a large photo on
    ``qsit-mini``, 426 MB on ``qsit``) until it is dropped.
    """

    def __init__(self, model: QSiT, tokens: torch.Tensor, size: tuple[int, int], image: Image.Image):
        self.model, self.tokens, self.size, self.image = model, tokens, size, image
        self._prefixes: dict[Network, Prefix] = {}

    def prefix(self, before: tuple[int, ...], network: Network | None = None) -> Prefix:
        """The cached prefix. A prompt that begins otherwise (a text-first template) gets one of its own, not kept.

        ``network``: the one that reads on, None for the model's own. Another one looks at the image itself.
        """
        network = network or self.model.network
        kept = self._prefixes.get(network)
        if kept is not None and kept.before == before:
            return kept
        tokens = self.tokens if network is self.model.network else network.look_at(self.image)
        made = network.prefix(before, tokens)
        self._prefixes.setdefault(network, made)
        return made

    def score(self) -> Score:
        return self.model.score(self)

    def ask(self, question: str, **options: Any) -> Answer:
        return self.model.ask(self, question, **options)

    def explain(self, **options: Any) -> Answer:
        return self.model.explain(self, **options)

    def stream(self, question: str = protocol.EXPLAIN, **options: Any) -> Iterator[str]:
        return self.model.stream(self, question, **options)

    def choose(self, question: str, options: Sequence[str]) -> list[float]:
        return self.model.choose(self, question, options)

    def attributes(self) -> dict[str, float]:
        return self.model.attributes(self)
