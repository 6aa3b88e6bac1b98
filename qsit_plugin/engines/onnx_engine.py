"""The engine on ONNX Runtime: a checkpoint's exported graphs, on the CPU in float32. Imports neither torch nor
transformers.

Shapes: B rows, T new tokens, P tokens in the cache, D width of the language model, V size of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from qsit_plugin.checkpoint.onnx_record import DECODER, VISION, OnnxRecord, read_graph
from qsit_plugin.errors import WeightsError
from qsit_plugin.tiling import Tiling

from .base import Logits, Prompt
from .onnx_cache import Cache, Prefix
from .onnx_packing import normalised, packed
from .onnx_session import Session, cpu_threads, to_value
from .onnx_weights import read_float32

PATCHES = 2048
"""Patches of the tiles that go through the vision tower at once: more gain nothing on a CPU, and their activations
leave its caches."""

TOKENS = 128
"""Tokens that the language model reads at once, at most. ONNX Runtime computes causal attention for all pairs of them
and throws half away; in pieces that go on from the cache it computes little that is to come, and its scores stay in the
processor's caches: half the time of a prefill of 700 tokens."""


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
        self._vision, self._decoder = (self._open(name, weights) for name in (VISION, DECODER))
        self._embedding, self._newline = weights[record.embedding], weights[record.newline]
        if self._newline.ndim != 1 or self._embedding.shape != (record.vocabulary, len(self._newline)):
            raise WeightsError(
                f"{folder}: its onnx.json names the wrong tensors for tokens and newline; export it again"
            )

    def _open(self, name: str, weights: Mapping[str, np.ndarray]) -> Session:
        given = {key: weights[key] for key in self.record.weights[name]}
        return Session(self.folder / name, read_graph(self.folder, self.record, name), given, self.threads)

    def __repr__(self) -> str:
        return f"OnnxEngine({str(self.folder)!r})"

    def __reduce__(self) -> Any:
        return OnnxEngine, (self.folder, self.record, self.tiling)  # sessions are opened again in a copy

    @property
    def vocabulary(self) -> int:
        return self.record.vocabulary

    def free_memory(self) -> None:
        """Nothing is held in reserve."""

    # ---- the protocol, see base.Engine ----

    def encode(self, tiles: Sequence[np.ndarray], sizes: Sequence[tuple[int, int]]) -> list[np.ndarray]:
        whole = np.concatenate(list(tiles))  # bytes; floats chunk by chunk
        chunk = max(1, PATCHES // self.tiling.side**2)
        found = []
        for start in range(0, len(whole), chunk):
            pixels = to_value(normalised(self.tiling, whole[start : start + chunk]))
            found.append(self._vision.run(["features"], {"pixels": pixels})[0].numpy())
        ends = np.cumsum([len(own) for own in tiles])[:-1]
        parts = np.split(np.concatenate(found), ends)
        return [packed(self.tiling, own, *size, newline=self._newline) for own, size in zip(parts, sizes, strict=True)]

    def read(self, prompt: Prompt, images: Sequence[np.ndarray], tokens: Sequence[int]) -> Logits:
        """One sequence after the other: a CPU gains little from a batch, and would compute its padding."""
        before, after = self.embed(prompt.before), self.embed(prompt.after)
        rows = [self.advance(np.concatenate([before, image, after])[None], self.empty()) for image in images]
        return _chosen(np.concatenate(rows), tokens)

    def prefill(self, before: Sequence[int], image: np.ndarray) -> Prefix:
        cache = self.empty()
        self.advance(np.concatenate([self.embed(before), image])[None], cache)
        return cache.prefix()

    def read_after(self, prefix: Prefix, after: Sequence[int], tokens: Sequence[int]) -> Logits:
        return _chosen(self.advance(self.embed(after)[None], Cache.joined([prefix])), tokens)

    def decoder(self, prefixes: Sequence[Prefix], after: Sequence[int]) -> OnnxDecoder:
        return OnnxDecoder(self, Cache.joined(prefixes), after)

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

    def advance(self, embeddings: np.ndarray, cache: Cache) -> np.ndarray:
        """(B, T, D) embeddings, read after the cache, which is extended by them -> float32 (B, V) logits at the end."""
        for start in range(0, embeddings.shape[1], TOKENS):
            part = embeddings[:, start : start + TOKENS]
            inputs = {
                "embeddings": to_value(part),
                "positions": to_value(cache.lengths[:, None] + np.arange(part.shape[1])),
                "visible": to_value(cache.visible(part.shape[1])),
                **cache.inputs(),
            }
            logits, *present = self._decoder.run(["logits", *cache.outputs()], inputs)
            cache.extend(present, part.shape[1])
        return logits.numpy()


class OnnxDecoder:
    """See ``base.Decoder``. Rows are padded on the left, in the cache and in nothing else."""

    def __init__(self, engine: OnnxEngine, cache: Cache, after: Sequence[int]):
        self._engine, self._cache, self._after = engine, cache, list(after)
        self._logits = np.empty((0, 0), np.float32)

    def step(self, tokens: Sequence[int] | None) -> tuple[list[int], list[bool]]:
        rows = [self._after] * len(self._cache.lengths) if tokens is None else [[token] for token in tokens]
        embeddings = np.stack([self._engine.embed(row) for row in rows])
        self._logits = self._engine.advance(embeddings, self._cache)
        finite = [bool(np.isfinite(row).all()) for row in self._logits]
        return self._logits.argmax(-1).tolist(), finite

    def sample(self, row: int, sampler: Callable[[np.ndarray], int]) -> int:
        return sampler(self._logits[row])

    def keep(self, rows: Sequence[int]) -> None:
        self._cache.keep(rows)
        self._logits = self._logits[list(rows)]


def _chosen(logits: np.ndarray, tokens: Sequence[int]) -> Logits:
    """What ``base.Logits`` holds of (B, V) logits."""
    with np.errstate(all="ignore"):  # logits that are not finite are looked for by finite.py
        top = logits.max(-1)
        total = np.log(np.exp(logits.astype(np.float64) - top[:, None]).sum(-1)) + top
    return Logits(logits[:, list(tokens)], total.astype(np.float32))
