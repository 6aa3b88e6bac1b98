"""Writing an answer, token by token: greedy or sampled, streamed, stopped on repetition, cancelled between tokens."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

MAX_NEW_TOKENS = 200
"""As in the released script."""

REPEATS = 3
"""A passage that stands this many times in a row ends the answer (short passages need more, see find_loop)."""


@dataclass(frozen=True)
class Answer:
    """A generated text. ``finish_reason``: "stop" (the model ended its turn), "length", "repetition" or "cancelled".

    ``mode``: "released", or what was chosen that changes the output, as in a Score.
    """

    text: str
    tokens: int
    finish_reason: str
    mode: str = "released"

    def __str__(self) -> str:
        return self.text


def find_loop(tokens: Sequence[int], longest: int = 40) -> int | None:
    """Number of tokens to keep when the tail repeats itself, None when it does not.

    A passage of n tokens counts as a loop when it stands 3 times in a row and covers 12 tokens or more, so that
    "very very very" passes and "the image is the image is …" does not. One copy is kept.
    """
    for size in range(1, min(longest, len(tokens) // REPEATS) + 1):
        repeats = max(REPEATS, -(-12 // size))
        if len(tokens) < size * repeats:
            continue
        tail = list(tokens[-size:])
        if all(list(tokens[len(tokens) - size * (i + 1) : len(tokens) - size * i]) == tail for i in range(repeats)):
            return len(tokens) - size * (repeats - 1)
    return None


def tokens_until_stop(
    step: Callable[[int | None], Any],
    *,
    stop_ids: frozenset[int],
    max_new_tokens: int,
    pick: Callable[[Any], int],
    cancel: Callable[[], bool] | None,
) -> Generator[int, None, tuple[str, int]]:
    """Yield token ids; return (finish_reason, number of tokens to keep).

    ``step(None)`` gives the logits after the prompt, ``step(token)`` those after one more token; ``pick`` chooses from
    them. ``cancel`` is asked before every token.
    """
    if max_new_tokens < 1:
        raise ValueError(f"max_new_tokens must be at least 1, got {max_new_tokens}")
    written: list[int] = []
    last: int | None = None
    while True:
        if cancel is not None and cancel():
            return "cancelled", len(written)
        token = pick(step(last))
        if token in stop_ids:
            return "stop", len(written)
        written.append(token)
        yield token
        keep = find_loop(written)
        if keep is not None:
            return "repetition", keep
        if len(written) >= max_new_tokens:
            return "length", len(written)
        last = token


def text_pieces(decode: Callable[[list[int]], str], tokens: Iterator[int]) -> Generator[str, None, None]:
    """Decode a token stream into printable pieces; half a multi-byte character waits for its other half."""
    written: list[int] = []
    shown = ""
    for token in tokens:
        written.append(token)
        text = decode(written)
        if text.endswith("�"):
            continue
        if len(text) > len(shown):
            yield text[len(shown) :]
            shown = text
    text = decode(written)
    if len(text) > len(shown):
        yield text[len(shown) :]
