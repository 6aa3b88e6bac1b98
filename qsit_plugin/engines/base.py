"""The protocol of an engine: encode images, read logits at the end of a prompt, decode an answer from there.

Everything beside it (images, tiling, prompts, batches, the finite check, the loop that writes) knows an engine by these
methods only and computes no tensor itself. Shapes: B images, S the side of a tile in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from qsit_plugin.tiling import Tiling


@dataclass(frozen=True)
class Prompt:
    """A rendered, tokenised question around one image: ``before`` + image tokens + ``after``."""

    before: tuple[int, ...]
    after: tuple[int, ...]


@dataclass(frozen=True)
class Logits:
    """What was read at the last token of B prompts: float32 ``chosen`` (B, number of tokens asked for) and ``total``
    (B,), the logarithm of the summed exponentials of all tokens' logits."""

    chosen: np.ndarray
    total: np.ndarray


class Decoder(Protocol):
    """Decodes the answers of B rows at once, each from its prefix: one step reads one token more of each."""

    def step(self, tokens: Sequence[int] | None) -> tuple[list[int], list[bool]]:
        """Read one token a row, or the prompt for None. Returns each row's likeliest next token, and whether all of
        its logits are finite."""

    def sample(self, row: int, sampler: Any) -> int:
        """The next token of a row, drawn by a sampler of the engine from the logits of the latest step."""

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these rows only."""


class Engine(Protocol):
    """One opened model on one device. Its methods may be called from several threads.

    Logits that are not finite are returned as they are: ``finite.py`` looks at them. Where the device has no memory
    left a method raises one of ``memory_errors``.
    """

    name: str
    """As it is chosen: "torch", "onnx"."""
    tiling: Tiling
    memory_errors: tuple[type[Exception], ...]
    """What it raises where the device has no memory left."""

    @property
    def place(self) -> str:
        """Kind of its device: "cpu", "cuda", "mps"."""

    @property
    def dtype_name(self) -> str:
        """Its number format: "float32", "float16", "bfloat16"."""

    @property
    def threads(self) -> int:
        """Processor cores that it computes on."""

    @property
    def at_once(self) -> int:
        """Images that it works on at the same time, a core each; 1 where all its cores share the work of one."""

    def alone(self) -> AbstractContextManager[None]:
        """What this thread asks for inside is computed on it alone, beside what other threads ask for."""

    @property
    def vocabulary(self) -> int:
        """Tokens that the model knows."""

    def free_memory(self) -> None:
        """Give back what is only held in reserve, after one of ``memory_errors``."""

    def encode(self, tiles: Sequence[np.ndarray], sizes: Sequence[tuple[int, int]]) -> list[Any]:
        """Image tokens, an object of the engine's own for each image.

        ``tiles``: an image's uint8 (1 + rows * columns, 3, S, S), base view first. ``sizes``: its (width, height).
        """

    def begin(self, tiles: np.ndarray, size: tuple[int, int]) -> Any:
        """As ``encode`` for one image; may leave the work to ``read`` and ``prefill``, which take it as it comes."""

    def read(self, prompt: Prompt, images: Sequence[Any], tokens: Sequence[int]) -> Logits:
        """Logits of ``tokens`` at the end of the prompt around each of the images that ``encode`` or ``begin`` gave."""

    def prefill(self, before: Sequence[int], image: Any) -> Any:
        """The KV cache of the text before an image and of the image: a prefix, which is never changed."""

    def read_after(self, prefix: Any, after: Sequence[int], tokens: Sequence[int]) -> Logits:
        """As ``read`` for one image (B = 1), going on from a prefix."""

    def decoder(self, prefixes: Sequence[Any], after: Sequence[int]) -> Decoder:
        """A decoder of so many rows, each of which goes on from its prefix with the same text."""

    def sampler(self, temperature: float, seed: int) -> Any:
        """A source of random numbers for ``Decoder.sample``: the same seed draws the same tokens."""
