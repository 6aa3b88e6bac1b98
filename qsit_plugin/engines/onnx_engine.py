"""The engine on ONNX Runtime: a checkpoint's exported graphs, on the CPU in float32. Imports neither torch nor
transformers.

Shapes: B rows, T new tokens, P tokens in the cache, D width of the language model, V size of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from itertools import chain
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from qsit_plugin.checkpoint.onnx_record import DECODER, VISION, OnnxRecord, read_graph
from qsit_plugin.errors import WeightsError
from qsit_plugin.tiling import Tiling

from .base import Logits, Prompt
from .onnx_cache import Cache, Prefix
from .onnx_packing import Pieces, normalised, packed, regrouped
from .onnx_session import Session, Workers, cpu_threads, to_value
from .onnx_weights import read_float32

Image: TypeAlias = np.ndarray | Pieces
"""The tokens of an image, (n, D), or pieces of them."""

PATCHES = 2048
"""Patches of the tiles that go through the vision tower at once: more gain nothing on a CPU, and their activations
leave its caches."""

TOKENS = 128
"""Tokens that the language model reads at once, at most. ONNX Runtime computes causal attention for all pairs of them
and throws half away; in pieces that go on from the cache it computes little that is to come, and its scores stay in the
processor's caches: half the time of a prefill of 700 tokens."""

SMALL = 64 * 2**20
"""Bytes of weights up to which a model's work is divided among the threads by images and tiles and not inside of its
operations: those end too soon for threads to wait for each other at the end of each."""

SMALL_PATCHES, SMALL_TOKENS = 64, 64
"""The same for such a model: fewer patches, that there are some for every thread, and fewer tokens, since one thread
reads them. Neither depends on the number of threads, so no score does."""

MOST_AT_ONCE = 8
"""Images of a list that are worked on at the same time: a photo of 12 megapixels takes some 100 MB meanwhile."""


class OnnxEngine:
    """Runs the two graphs of a checkpoint; holds no state beside them, so it may be shared by threads."""

    name = "onnx"
    device = place = "cpu"
    dtype = dtype_name = "float32"
    memory_errors: tuple[type[Exception], ...] = (MemoryError,)

    def __init__(self, folder: Path, record: OnnxRecord, tiling: Tiling):
        """Raises WeightsError for graphs or weights that cannot be opened, or that are not those of the record."""
        self.folder, self.record, self.tiling = folder, record, tiling
        self.threads = cpu_threads()
        named = {record.embedding, record.newline, *record.weights[VISION], *record.weights[DECODER]}
        weights = read_float32(folder, named)
        self._small = sum(values.nbytes for values in weights.values()) <= SMALL
        self._workers = Workers(self.threads if self._small else 1)
        self._patches, self._tokens = (SMALL_PATCHES, SMALL_TOKENS) if self._small else (PATCHES, TOKENS)
        self._vision, self._decoder = (self._open(name, weights) for name in (VISION, DECODER))
        self._embedding, self._newline = weights[record.embedding], weights[record.newline]
        if self._newline.ndim != 1 or self._embedding.shape != (record.vocabulary, len(self._newline)):
            raise WeightsError(
                f"{folder}: its onnx.json names the wrong tensors for tokens and newline; export it again"
            )

    def _open(self, name: str, weights: Mapping[str, np.ndarray]) -> Session:
        given, threads = {key: weights[key] for key in self.record.weights[name]}, 1 if self._small else self.threads
        return Session(self.folder / name, read_graph(self.folder, self.record, name), given, threads)

    def __repr__(self) -> str:
        return f"OnnxEngine({str(self.folder)!r})"

    def __reduce__(self) -> Any:
        return OnnxEngine, (self.folder, self.record, self.tiling)  # sessions are opened again in a copy

    @property
    def vocabulary(self) -> int:
        return self.record.vocabulary

    @property
    def at_once(self) -> int:
        return min(self._workers.threads, MOST_AT_ONCE)

    def alone(self) -> AbstractContextManager[None]:
        return self._workers.staying()

    def free_memory(self) -> None:
        """Nothing is held in reserve."""

    # ---- the protocol, see base.Engine ----

    def encode(self, tiles: Sequence[np.ndarray], sizes: Sequence[tuple[int, int]]) -> list[np.ndarray]:
        return [np.concatenate(list(self.begin(*one))) for one in zip(tiles, sizes, strict=True)]

    def begin(self, tiles: np.ndarray, size: tuple[int, int]) -> Pieces:
        """The language model reads the first pieces while the tower looks at the last tiles."""
        count = max(1, self._patches // self.tiling.side**2)
        some = [tiles[start : start + count] for start in range(0, len(tiles), count)]
        return Pieces(
            lambda: packed(self.tiling, self._workers.ahead(self._features, some), *size, newline=self._newline)
        )

    def _features(self, tiles: np.ndarray) -> np.ndarray:
        """uint8 (N, 3, S, S) -> (N, patches, D) projected features."""
        pixels = to_value(normalised(self.tiling, tiles))
        return self._vision.run(["features"], {"pixels": pixels})[0].numpy()

    def read(self, prompt: Prompt, images: Sequence[Image], tokens: Sequence[int]) -> Logits:
        """One sequence after the other: a CPU gains little from a batch, and would compute its padding."""
        rows = [self._sequence(prompt.before, image, prompt.after, self.empty()) for image in images]
        return _chosen(np.concatenate(rows), tokens)

    def prefill(self, before: Sequence[int], image: Image) -> Prefix:
        cache = self.empty()
        self._sequence(before, image, (), cache)
        return cache.prefix()

    def read_after(self, prefix: Prefix, after: Sequence[int], tokens: Sequence[int]) -> Logits:
        return _chosen(self.advance(self.embed(after)[None], Cache.joined([prefix])), tokens)

    def decoder(self, prefixes: Sequence[Prefix], after: Sequence[int]) -> OnnxDecoder:
        return OnnxDecoder(self, prefixes, after)

    def advance_each(self, embeddings: Sequence[np.ndarray], caches: Sequence[Cache]) -> Iterator[np.ndarray]:
        """``advance`` by each of the embeddings, side by side."""
        return self._workers.ahead(lambda one: self.advance(*one), list(zip(embeddings, caches, strict=True)))

    def sampler(self, temperature: float, seed: int) -> Callable[[np.ndarray], int]:
        """Other random numbers than the torch engine's: a seed gives the same text in each, not the same in both."""
        generator = np.random.default_rng(seed % 2**64)

        def draw(logits: np.ndarray) -> int:
            values = logits.astype(np.float64)  # a float32 would overflow, or be divided by 0, at a temperature near 0
            shares = np.exp((values - values.max()) / temperature)
            reached = np.cumsum(shares)
            return int(np.searchsorted(reached, generator.random() * reached[-1], side="right"))

        return draw

    # ---- the forward ----

    def embed(self, ids: Sequence[int]) -> np.ndarray:
        """(T, D) embeddings of token ids."""
        return self._embedding[np.asarray(ids, np.int64)]

    def empty(self) -> Cache:
        """A cache of one row in which nothing has been read."""
        shape = (1, self.record.heads, 0, self.record.head_size)
        return Cache.joined([Prefix(0, ((np.empty(shape, np.float32),) * 2,) * self.record.layers)])

    def _sequence(self, before: Sequence[int], image: Image, after: Sequence[int], cache: Cache) -> np.ndarray:
        """Text, image and text, read into a cache of one row -> float32 (1, V) logits at the end."""
        pieces = chain([self.embed(before)], [image] if isinstance(image, np.ndarray) else image, [self.embed(after)])
        for piece in regrouped(pieces, self._tokens):
            logits = self._advance(piece[None], cache)
        return logits

    def advance(self, embeddings: np.ndarray, cache: Cache) -> np.ndarray:
        """(B, T, D) embeddings, read after the cache, which is extended by them -> float32 (B, V) logits at the end."""
        for start in range(0, embeddings.shape[1], self._tokens):
            logits = self._advance(embeddings[:, start : start + self._tokens], cache)
        return logits

    def _advance(self, embeddings: np.ndarray, cache: Cache) -> np.ndarray:
        """``advance`` by few enough tokens to be read at once."""
        new = embeddings.shape[1]
        inputs = {
            "embeddings": to_value(embeddings),
            "positions": to_value(cache.lengths[:, None] + np.arange(new)),
            "visible": to_value(cache.visible(new)),
            **cache.inputs(),
        }
        logits, *present = self._decoder.run(["logits", *cache.outputs()], inputs)
        cache.extend(present, new)
        return logits.numpy()


class OnnxDecoder:
    """See ``base.Decoder``. Rows are padded on the left, in the cache and in nothing else.

    They are in as many groups as the engine works on at once, each with a cache of its own.
    """

    def __init__(self, engine: OnnxEngine, prefixes: Sequence[Prefix], after: Sequence[int]):
        groups = np.array_split(np.arange(len(prefixes)), min(engine.at_once, max(1, len(prefixes) // 2)))
        self._caches = [Cache.joined([prefixes[row] for row in group]) for group in groups]
        self._engine, self._after, self._logits = engine, list(after), np.empty((0, 0), np.float32)

    def step(self, tokens: Sequence[int] | None) -> tuple[list[int], list[bool]]:
        ends = np.cumsum([len(cache.lengths) for cache in self._caches])
        rows = [self._after] * ends[-1] if tokens is None else [[token] for token in tokens]
        embeddings = np.split(np.stack([self._engine.embed(row) for row in rows]), ends[:-1])
        self._logits = np.concatenate(list(self._engine.advance_each(embeddings, self._caches)))
        finite = [bool(np.isfinite(row).all()) for row in self._logits]
        return self._logits.argmax(-1).tolist(), finite

    def sample(self, row: int, sampler: Callable[[np.ndarray], int]) -> int:
        return sampler(self._logits[row])

    def keep(self, rows: Sequence[int]) -> None:
        first, left = 0, []
        for cache in self._caches:
            own = [row - first for row in rows if 0 <= row - first < len(cache.lengths)]
            first += len(cache.lengths)
            if own:
                cache.keep(own)
                left.append(cache)
        self._caches, self._logits = left, self._logits[list(rows)]


def _chosen(logits: np.ndarray, tokens: Sequence[int]) -> Logits:
    """What ``base.Logits`` holds of (B, V) logits."""
    with np.errstate(all="ignore"):  # logits that are not finite are looked for by finite.py
        top = logits.max(-1)
        total = np.log(np.exp(logits.astype(np.float64) - top[:, None]).sum(-1)) + top
    return Logits(logits[:, list(tokens)], total.astype(np.float32))
