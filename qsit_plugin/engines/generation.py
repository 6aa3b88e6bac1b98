"""Generation of answers, as a batch: greedy or sampled, stopped by row, cancelled between tokens."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypedDict

from qsit_plugin.protocol import MAX_NEW_TOKENS

from .base import Engine, Prompt
from .batches import side_by_side
from .finite import after_overflow, non_finite

if TYPE_CHECKING:
    from qsit_plugin.model import QSiT

REPEATS = 3
"""A passage repeated this many times in a row ends the answer (short passages need more, see find_loop)."""


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


class Writing(TypedDict, total=False):
    """How an answer is written.

    - ``max_new_tokens``: at most this many tokens (200, as released).
    - ``temperature``: None is greedy; above 0 samples from the softened distribution.
    - ``seed``: of the sampling; the same seed gives the same text, alone or in a list.
    - ``cancel``: called before every token; True ends the answer with ``finish_reason="cancelled"``. In a list it is
      called once for each answer that is still being written.
    """

    max_new_tokens: int
    temperature: float | None
    seed: int
    cancel: Callable[[], bool] | None


class Row:
    """One answer while it is written. ``reason``: why it ended, None before. ``keep``: how many of the tokens count.
    ``engine``: the one that wrote the latest token."""

    def __init__(
        self,
        model: QSiT,
        prefix: Callable[[Engine], Any],
        room: int,
        *,
        max_new_tokens: int = MAX_NEW_TOKENS,
        temperature: float | None = None,
        seed: int = 0,
        cancel: Callable[[], bool] | None = None,
    ):
        """
        Args:
            prefix: from an engine to the KV cache of the image.
            room: tokens that the context has left after prompt and image. The answer ends there with "length", at one
                token more: the last token is never read.
        """
        if max_new_tokens < 1:
            raise ValueError(f"max_new_tokens must be at least 1, got {max_new_tokens}")
        if temperature is not None and not temperature > 0.0:
            raise ValueError(f"temperature must be above 0, or None for greedy; got {temperature}")
        if not -(2**63) <= seed < 2**64:
            raise ValueError(f"seed must be a whole number of 64 bits, -2**63 to 2**64 - 1; got {seed}")
        self.model, self.prefix = model, prefix
        self.engine: Engine = model.engine
        self.limit, self.cancel = min(max_new_tokens, room + 1), cancel
        self.sampler = None if temperature is None else model.engine.sampler(temperature, seed)
        self.written: list[int] = []
        self.reason: str | None = None
        self.keep = 0

    def cancelled(self) -> bool:
        """Ask ``cancel``, and end where it says so."""
        if self.cancel is not None and self.cancel():
            self._end("cancelled", len(self.written))
        return self.reason is not None

    def take(self, token: int) -> bool:
        """Append a token, or end at a stop token. Returns whether it was appended."""
        if token in self.model.stop_ids:
            self._end("stop", len(self.written))
            return False
        self.written.append(token)
        if (keep := find_loop(self.written)) is not None:
            self._end("repetition", keep)
        elif len(self.written) >= self.limit:
            self._end("length", len(self.written))
        return True

    def _end(self, reason: str, keep: int) -> None:
        self.reason, self.keep = reason, keep

    def answer(self) -> Answer:
        text = self.model.conversation.decode(self.written[: self.keep]).strip()
        return Answer(text, self.keep, self.reason or "length", self.model.mode(self.engine))


def write(rows: Sequence[Row], prompt: Prompt) -> Iterator[tuple[Row, int]]:
    """Write the answers of all rows to one prompt: (row, token) as they come, until every row has its ``reason``.

    One step reads a token of each row that still writes. A row whose logits are not finite leaves the others and is
    written on alone, by the model's second engine. Raises NonFiniteError where there is none.
    """
    overflowed: list[Row] = []
    yield from _write(rows, prompt, overflowed)
    for row in overflowed:
        row.engine = after_overflow(row.model, row.engine)
        whole = Prompt(prompt.before, (*prompt.after, *row.written))
        again: list[Row] = []
        yield from _write([row], whole, again)
        if again:
            raise non_finite(row.model, row.engine)


def _write(rows: Sequence[Row], prompt: Prompt, overflowed: list[Row]) -> Iterator[tuple[Row, int]]:
    """``write`` by the rows' engine, which is one for all; rows that are not finite in it go to ``overflowed``."""
    writing: list[Row] = []

    def read(row: Row) -> Any:
        return row.prefix(row.engine)

    def uncancelled() -> Iterator[Row]:
        for row in rows:
            if not row.cancelled():  # asked before each image is read, which may take as long as an answer
                writing.append(row)
                yield row

    if len(rows) == 1:
        prefixes = [read(row) for row in uncancelled()]  # on all threads of the engine
    else:
        prefixes = list(side_by_side(rows[0].engine, read, uncancelled()))
    if not writing:
        return
    decoder, tokens = writing[0].engine.decoder(prefixes, prompt.after), None
    del prefixes  # copied, and large
    while writing:
        likeliest, finite = decoder.step(tokens)
        for place, row in enumerate(writing):
            if not finite[place]:
                overflowed.append(row)
                continue
            token = likeliest[place] if row.sampler is None else decoder.sample(place, row.sampler)
            if row.take(token):
                yield row, token
        going = [place for place, row in enumerate(writing) if finite[place] and not (row.reason or row.cancelled())]
        if len(going) < len(writing):
            decoder.keep(going)
            writing = [writing[place] for place in going]
        tokens = [row.written[-1] for row in writing]


def find_loop(tokens: Sequence[int], longest: int = 40) -> int | None:
    """Number of tokens to keep when the tail repeats itself, None when it does not.

    A passage of n tokens counts as a loop when it is repeated 3 times in a row and covers 12 tokens or more, so that
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


def text_pieces(decode: Callable[[list[int]], str], tokens: Iterable[int]) -> Generator[str, None, None]:
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
