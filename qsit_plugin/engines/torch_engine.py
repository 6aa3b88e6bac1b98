"""The engine on torch: transformers' own modules and their forward. Scores, answers, gradients and losses share it.

Only this file, ``kv_cache.py`` and ``checkpoint/`` know transformers' classes. Shapes: B images, T tokens of a
sequence, D width of the language model, V size of the vocabulary.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from transformers import DynamicCache

from qsit_plugin.tiling import Tiling

from .ambient import check_fork, without_autocast
from .base import Logits, Prompt
from .kv_cache import SPARE, Prefix, joined

VISION_CHUNK = 64
"""Tiles that go through the vision tower at once: more cost memory and gain nothing on any device we know."""

CPU_PATCHES = 2048
"""On a CPU, patches of the tiles that go through at once: more gain nothing, and their activations leave its caches."""

PADDING = 0.125
"""Share of padding up to which sequences of several lengths go through the language model together, on a GPU. On a CPU
only equal ones do: it gains little from a batch and would compute the padding."""

Method = TypeVar("Method", bound=Callable[..., Any])


def _inference(method: Method) -> Method:
    """For inference: outside the caller's autocast, without a graph, never in a fork whose threads would hang."""

    @functools.wraps(method)
    def run(self: Any, *args: Any, **options: Any) -> Any:
        check_fork()
        engine = self.engine if isinstance(self, TorchDecoder) else self
        with torch.inference_mode(), engine.arithmetic():
            return method(self, *args, **options)

    return run  # type: ignore[return-value]


class TorchEngine:
    """Runs a ``LlavaOnevisionForConditionalGeneration``; holds no state beside it, so it may be shared by threads."""

    name = "torch"
    memory_errors: tuple[type[Exception], ...] = (torch.OutOfMemoryError,)
    at_once = 1
    alone = contextlib.nullcontext

    def __init__(self, model: Any, tiling: Tiling, *, follow_autocast: bool = False):
        """``follow_autocast``: compute in the caller's autocast instead of outside; only for a model in training."""
        self.hf, self.tiling, self.config = model, tiling, model.config
        self.follow_autocast = follow_autocast
        tower = model.model.vision_tower
        self._tower = getattr(tower, "vision_model", tower)  # transformers 4 wraps the tower once more
        self._encoder, self._text = self._tower.encoder, model.model.language_model
        known = inspect.signature(self._text.forward).parameters
        self._cache_name = "cache" if "cache" in known else "past_key_values"  # renamed in transformers 5

    def __repr__(self) -> str:
        return f"TorchEngine({self.device}, {self.dtype_name})"

    @property
    def device(self) -> torch.device:
        return self.hf.lm_head.weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.hf.lm_head.weight.dtype

    @property
    def place(self) -> str:
        return self.device.type

    @property
    def dtype_name(self) -> str:
        return str(self.dtype).removeprefix("torch.")

    @property
    def threads(self) -> int:
        return torch.get_num_threads()

    @property
    def vocabulary(self) -> int:
        return self.hf.get_input_embeddings().num_embeddings

    def arithmetic(self) -> Any:
        """Around everything that is computed; see ``follow_autocast``."""
        return contextlib.nullcontext() if self.follow_autocast else without_autocast(self.device)

    def free_memory(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    # ---- the protocol, see base.Engine ----

    @_inference
    def encode(self, tiles: Sequence[np.ndarray], sizes: Sequence[tuple[int, int]]) -> list[torch.Tensor]:
        whole = torch.cat([torch.from_numpy(own) for own in tiles]).to(self.device)  # bytes; floats chunk by chunk
        chunk = max(1, CPU_PATCHES // self.tiling.side**2) if self.device.type == "cpu" else VISION_CHUNK
        features = torch.cat(
            [self.features(normalise(self.tiling, part).to(self.dtype)) for part in whole.split(chunk)]
        )
        return self.pack(features, [len(own) for own in tiles], sizes)

    @_inference
    def read(self, prompt: Prompt, images: Sequence[torch.Tensor], tokens: Sequence[int]) -> Logits:
        return self._read_out(self.last_states(prompt, images), tokens)

    @_inference
    def prefill(self, before: Sequence[int], image: torch.Tensor) -> Prefix:
        embeddings = torch.cat([self.embed(before), image.to(self.device, self.dtype)])
        cache = DynamicCache()
        self.states(embeddings[None], cache=cache)
        return Prefix(len(embeddings), tuple((layer.keys, layer.values) for layer in cache.layers))

    @_inference
    def read_after(self, prefix: Prefix, after: Sequence[int], tokens: Sequence[int]) -> Logits:
        return self._read_out(self.states_after(prefix, after)[-1:], tokens)

    @_inference
    def decoder(self, prefixes: Sequence[Prefix], after: Sequence[int]) -> TorchDecoder:
        return TorchDecoder(self, prefixes, after)

    def sampler(self, temperature: float, seed: int) -> Callable[[torch.Tensor], int]:
        """With a separate random generator, so that no global state is touched."""
        generator = torch.Generator().manual_seed(seed)

        def draw(logits: torch.Tensor) -> int:
            values = logits.cpu().double()  # a float32 would overflow, or be divided by 0, at a temperature near 0
            shares = ((values - values.max()) / temperature).softmax(-1).float()
            return int(torch.multinomial(shares, 1, generator=generator))

        return draw

    # ---- the forward ----

    def features(self, pixels: torch.Tensor) -> torch.Tensor:
        """(N, 3, S, S) normalised pixels -> (N, patches, width) features of the configured layer.

        Layer -1 is the encoder's output *before* ``post_layernorm`` (that is what hidden_states[-1] holds), so the
        encoder is called without the tower and no other layer's states are kept: 1.7 GB less for a 37-tile image at
        full size.
        """
        layer = self.config.vision_feature_layer
        if layer == -1:
            found = self._encoder(inputs_embeds=self._tower.embeddings(pixels)).last_hidden_state
        else:
            states = self.hf.model.vision_tower(pixels, output_hidden_states=True).hidden_states
            found = states[layer] if isinstance(layer, int) else torch.cat([states[i] for i in layer], dim=-1)
        return found[:, 1:] if self.config.vision_feature_select_strategy == "default" else found

    def pack(
        self, features: torch.Tensor, counts: Sequence[int], sizes: Sequence[tuple[int, int]]
    ) -> list[torch.Tensor]:
        """Features of all tiles (N, patches, width) -> packed image tokens, one (n, D) tensor an image.

        ``counts``: tiles of each image. ``sizes``: its (width, height).
        """
        parts = self.hf.model.multi_modal_projector(features).split(list(counts))
        return [self._packed(own, *size) for own, size in zip(parts, sizes, strict=True)]

    def begin(self, tiles: np.ndarray, size: tuple[int, int]) -> torch.Tensor:
        return self.encode([tiles], [size])[0]

    def _packed(self, tiles: torch.Tensor, width: int, height: int) -> torch.Tensor:
        """One image's projected features (1 + rows * columns, patches, D) -> its tokens (n, D)."""
        rows, columns = self.tiling.unpadded(width, height)[2:]
        index = _feature_index(self.tiling, width, height, tiles.device)
        picture = tiles.flatten(0, 1).index_select(0, index)
        picture = picture.view(rows, columns, tiles.shape[-1])  # a thin picture may leave no row
        reduced = self.tiling.features(width, height)
        if reduced != (rows, columns):
            planes = picture.permute(2, 0, 1)[None]
            picture = functional.interpolate(planes, list(reduced), mode="bilinear")[0].permute(1, 2, 0)
        newline = self.hf.model.image_newline.to(picture).expand(len(picture), 1, -1)
        return torch.cat([tiles[0], torch.cat([picture, newline], 1).flatten(0, 1)])

    def embed(self, ids: Sequence[int]) -> torch.Tensor:
        """(T, D) embeddings of token ids."""
        return self.hf.get_input_embeddings()(torch.tensor(ids, dtype=torch.long, device=self.device))

    def states(
        self,
        embeddings: torch.Tensor,
        *,
        cache: Any = None,
        positions: torch.Tensor | None = None,
        mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """(B, T, D) embeddings -> (B, T, D) states. ``cache`` is read and extended; ``mask`` (B, cached + T) is 0 at
        padding, and None where there is none: a mask takes attention off its fastest path."""
        caching = {"use_cache": False} if cache is None else {self._cache_name: cache, "use_cache": True}
        found = self._text(inputs_embeds=embeddings, position_ids=positions, attention_mask=mask, **caching)
        return found.last_hidden_state

    def last_states(self, prompt: Prompt, images: Sequence[torch.Tensor]) -> torch.Tensor:
        """Hidden state (B, D) at the end of the prompt around each image's tokens (n, D).

        Sequences of similar length share a pass, padded on the right: attention is causal, so that no token sees
        padding and no mask is needed.
        """
        before, after = self.embed(prompt.before), self.embed(prompt.after)  # goes to the device once for all images
        found: list[torch.Tensor] = [before] * len(images)
        for group in _similar([len(image) for image in images], 0.0 if self.device.type == "cpu" else PADDING):
            sequences = [torch.cat([before, images[place].to(self.dtype), after]) for place in group]
            hidden = self.states(nn.utils.rnn.pad_sequence(sequences, batch_first=True))
            for row, place in enumerate(group):
                found[place] = hidden[row, len(sequences[row]) - 1]
        return torch.stack(found)

    def states_after(self, prefix: Prefix, after: Sequence[int]) -> torch.Tensor:
        """Hidden states (T, D) at every token of a text that goes on from a prefix, which is not changed."""
        return self.states(self.embed(after)[None], cache=joined([prefix], len(after))[0])[0]

    def logits(self, states: torch.Tensor) -> torch.Tensor:
        """(B, D) states -> float32 (B, V) logits, computed in the model's dtype."""
        return self.hf.lm_head(states).float()

    def token_logits(self, states: torch.Tensor, ids: Sequence[int]) -> torch.Tensor:
        """(B, D) states -> float32 (B, len(ids)) logits of a few tokens, computed in float32.

        16-bit logits would be rounded by up to 0.03 of a score (bfloat16) before the softmax.
        """
        head = self.hf.lm_head
        rows = head.weight[list(ids)].float()
        bias = 0.0 if head.bias is None else head.bias[list(ids)].float()
        with without_autocast(states.device):  # a model in training is read under autocast
            return states.float() @ rows.T + bias

    def _read_out(self, states: torch.Tensor, tokens: Sequence[int]) -> Logits:
        """``total`` needs all rows of the head, once an image and at its last token only."""
        chosen, total = self.token_logits(states, tokens), self.logits(states).logsumexp(-1)
        return Logits(chosen.cpu().numpy(), total.cpu().numpy())

    def recomputing(self) -> TorchEngine:
        """The same weights and forward for a backward pass: each layer's activations are recomputed there instead of
        kept, so that one hidden state a layer remains (a tenth of the memory)."""
        twin = copy.copy(self)
        twin._encoder, twin._text = _recomputing(self._encoder), _recomputing(self._text)
        return twin


class TorchDecoder:
    """See ``base.Decoder``. Rows are padded on the left, in the cache and in nothing else."""

    def __init__(self, engine: TorchEngine, prefixes: Sequence[Prefix], after: Sequence[int]):
        self.engine, self._after = engine, list(after)
        self._cache, self._mask, self._lengths = joined(prefixes, len(after) + SPARE)
        self._logits = torch.empty(0)

    @_inference
    def step(self, tokens: Sequence[int] | None) -> tuple[list[int], list[bool]]:
        device = self.engine.device
        rows = [self._after] * len(self._lengths) if tokens is None else [[token] for token in tokens]
        ids = torch.tensor(rows, device=device)
        if self._mask is not None:
            self._mask = torch.cat([self._mask, self._mask.new_ones(ids.shape)], 1)
        positions = self._lengths[:, None] + torch.arange(ids.shape[1], device=device)
        embeddings = self.engine.hf.get_input_embeddings()(ids)
        hidden = self.engine.states(embeddings, cache=self._cache, positions=positions, mask=self._mask)
        self._lengths = self._lengths + ids.shape[1]
        self._logits = self.engine.logits(hidden[:, -1])
        return self._logits.argmax(-1).tolist(), self._logits.isfinite().all(-1).tolist()

    def sample(self, row: int, sampler: Callable[[torch.Tensor], int]) -> int:
        return sampler(self._logits[row])

    @_inference
    def keep(self, rows: Sequence[int]) -> None:
        chosen = torch.tensor(rows, dtype=torch.long, device=self.engine.device)
        self._cache.batch_select_indices(chosen)
        self._lengths, self._logits = self._lengths[chosen], self._logits[chosen]
        self._mask = None if self._mask is None else self._mask[chosen]


def normalise(tiling: Tiling, tiles: torch.Tensor) -> torch.Tensor:
    """uint8 (N, 3, S, S) -> float32 that the vision tower takes, equal bit by bit to transformers' PIL route."""
    table = torch.from_numpy(tiling.normalised).to(tiles.device)
    result = torch.empty(tiles.shape, dtype=torch.float32, device=tiles.device)
    for channel in range(3):
        values = tiles[:, channel]
        result[:, channel] = table[channel].index_select(0, values.reshape(-1).to(torch.int32)).view(values.shape)
    return result


def _similar(lengths: Sequence[int], padding: float) -> list[list[int]]:
    """Places of the lengths, in groups whose shortest is at least ``1 - padding`` of its longest."""
    groups: list[list[int]] = []
    for place in sorted(range(len(lengths)), key=lambda place: -lengths[place]):
        if groups and lengths[place] >= (1.0 - padding) * lengths[groups[-1][0]]:
            groups[-1].append(place)
        else:
            groups.append([place])
    return groups


@functools.lru_cache(maxsize=32)
def _feature_index(tiling: Tiling, width: int, height: int, device: torch.device) -> torch.Tensor:
    """Kept for the last few sizes: photos of one camera share it, and a GPU gets it once."""
    with torch.inference_mode(False):  # kept for passes that want a gradient, too
        return torch.from_numpy(tiling.feature_index(width, height)).to(device)


def _recomputing(module: nn.Module) -> nn.Module:
    """A module with the same weights whose ``layers`` are recomputed in the backward pass."""
    twin = copy.copy(module)
    twin._modules = dict(module._modules)
    twin.layers = nn.ModuleList(_Recomputed(layer) for layer in module.layers)  # type: ignore[union-attr]
    return twin


class _Recomputed(nn.Module):
    """A layer that keeps its input alone and runs once more in the backward pass."""

    def __init__(self, layer: nn.Module):
        super().__init__()
        self.layer = layer

    def __getattr__(self, name: str) -> Any:
        if name == "layer" or "layer" not in self._modules:
            return super().__getattr__(name)
        return getattr(self._modules["layer"], name)  # what the model's forward asks of its layers

    def forward(self, *args: Any, **options: Any) -> Any:
        return checkpoint(self.layer, *args, use_reentrant=False, preserve_rng_state=False, **options)
