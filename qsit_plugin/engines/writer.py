"""From a look and a question to a stream of tokens: the network's steps, and how each token is chosen."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TYPE_CHECKING

import torch

from .finite import read_finite
from .generation import MAX_NEW_TOKENS, tokens_until_stop

if TYPE_CHECKING:
    from ..look import Look
    from .network import Network, Prompt


class Writer:
    """Writes one answer to one prompt about one look. ``network`` is the one that wrote the latest token."""

    def __init__(self, look: Look, prompt: Prompt):
        self.look, self.prompt, self.network = look, prompt, look.model.network
        self._read: list[int | None] = []  # None stands for the prompt
        self._step: Callable[[int | None], torch.Tensor] | None = None

    def tokens(
        self,
        room: int,
        *,
        max_new_tokens: int = MAX_NEW_TOKENS,
        temperature: float | None = None,
        seed: int = 0,
        cancel: Callable[[], bool] | None = None,
    ) -> Generator[int, None, tuple[str, int]]:
        """Token ids, then ``(finish_reason, number of tokens to keep)``; options as for ``QSiT.ask``.

        Args:
            room: tokens that the context has left after prompt and image. The answer ends there with "length", at one
                token more: the last token is never read.
        """
        if max_new_tokens < 1:
            raise ValueError(f"max_new_tokens must be at least 1, got {max_new_tokens}")
        return tokens_until_stop(
            self.step,
            stop_ids=self.look.model.stop_ids,
            max_new_tokens=min(max_new_tokens, room + 1),
            pick=picker(temperature, seed),
            cancel=cancel,
        )

    def step(self, token: int | None) -> torch.Tensor:
        """Logits (V,) after the prompt (None), or after one token more."""
        self._read.append(token)
        with torch.inference_mode():
            logits, network = read_finite(self.look.model, self._logits, start=self.network)
        self.network = network
        return logits

    def _logits(self, network: Network) -> torch.Tensor:
        """Logits (V,) at the end of what is read; a network that comes second reads all of it."""
        unread = self._read[-1:]
        if self._step is None or network is not self.network:
            self._step = network.stepper(self.look.prefix(self.prompt.before, network), self.prompt.after)
            unread = self._read
        for token in unread:
            state = self._step(token)
        return network.logits(state)[0]


def picker(temperature: float | None, seed: int) -> Callable[[torch.Tensor], int]:
    """Greedy for None; else sampling with an own random generator, so that no global state is touched."""
    if temperature is None:
        return lambda logits: int(logits.argmax())
    if not temperature > 0.0:
        raise ValueError(f"temperature must be above 0, or None for greedy; got {temperature}")
    generator = torch.Generator().manual_seed(seed)
    return lambda logits: int(
        torch.multinomial((logits.float().cpu() / temperature).softmax(-1), 1, generator=generator)
    )
