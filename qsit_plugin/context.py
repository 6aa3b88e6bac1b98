"""What fits into the language model: the rendered question, the image and the answer share one context."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .engines.network import Prompt


class ContextError(ValueError):
    """A prompt and an image that are together longer than what the language model can read."""


def room_after(prompt: Prompt, image_tokens: int, context: int, name: str) -> int:
    """Tokens that the context has left for an answer. ``name``: of the model, for the message.

    Raises ContextError when prompt and image alone are longer than the context: rotary positions that no training has
    seen give answers such as "TheTheThe".
    """
    text = len(prompt.before) + len(prompt.after)
    if text + image_tokens > context:
        raise ContextError(
            f"the question has {text:,} tokens with its chat template and the image {image_tokens:,}, together "
            f"{text + image_tokens:,}; {name} reads at most {context:,}: shorten the question by "
            f"{text + image_tokens - context:,} tokens"
        )
    return context - text - image_tokens
