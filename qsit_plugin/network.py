"""The neural network behind a look: tiles -> image tokens -> logits. The only file that knows transformers' modules.

Shapes: B images, T tokens of a sequence, D width of the language model, V size of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

from .tiles import Tiling

VISION_CHUNK = 64
"""Tiles that go through the vision tower at once: more cost memory and gain nothing on any device we know."""


@dataclass(frozen=True)
class Prompt:
    """A rendered, tokenised question around one image: ``before`` + image tokens + ``after``."""

    before: tuple[int, ...]
    after: tuple[int, ...]


@dataclass
class Prefix:
    """The key-value cache of everything up to and including the image; shared by every question that starts so."""

    before: tuple[int, ...]
    length: int
    layers: list[tuple[torch.Tensor, torch.Tensor]]  # one (keys, values) a layer, each (1, heads, length, head size)


class Network:
    """Runs a ``LlavaOnevisionForConditionalGeneration``; holds no state beside it, so it may be shared."""

    def __init__(self, model: Any, tiling: Tiling):
        self.hf = model
        self.tiling = tiling
        self.config = model.config

    @property
    def device(self) -> torch.device:
        return self.hf.lm_head.weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.hf.lm_head.weight.dtype

    def image_tokens(self, tiles: Sequence[torch.Tensor], sizes: Sequence[tuple[int, int]]) -> list[torch.Tensor]:
        """Packed image tokens, one (n, D) tensor an image.

        ``tiles``: an image's uint8 (1 + rows * columns, 3, S, S), base view first. ``sizes``: its (width, height).
        All tiles of all images share the passes through the vision tower; nothing is padded.
        """
        pixels = self.tiling.normalise(torch.cat(list(tiles)).to(self.device)).to(self.dtype)
        features = torch.cat([self._vision(chunk) for chunk in pixels.split(VISION_CHUNK)])
        return self._pack(features, [len(t) for t in tiles], sizes)

    def _pack(
        self, features: torch.Tensor, counts: Sequence[int], sizes: Sequence[tuple[int, int]]
    ) -> list[torch.Tensor]:
        """Features of all tiles (N, patches, width) -> packed image tokens, one (n, D) tensor an image."""
        base = self.hf.model
        packed, _ = base.pack_image_features(
            base.multi_modal_projector(features).split(counts),
            [(height, width) for width, height in sizes],
            image_newline=base.image_newline,
            vision_aspect_ratio=f"anyres_max_{self.tiling.max_tiles}",
        )
        return list(packed)

    def _vision(self, pixels: torch.Tensor) -> torch.Tensor:
        """(N, 3, S, S) normalised pixels -> (N, patches, width) features of the configured layer.

        Layer -1 is the encoder's output *before* ``post_layernorm`` (that is what hidden_states[-1] holds), so the
        encoder is called directly and no other layer's states are kept: 1.7 GB less for a 37-tile image at full size.
        """
        tower = self.hf.model.vision_tower
        layer = self.config.vision_feature_layer
        if layer == -1:
            inner = getattr(tower, "vision_model", tower)  # transformers 4 wraps the tower once more
            features = inner.encoder(inputs_embeds=inner.embeddings(pixels)).last_hidden_state
        else:
            states = tower(pixels, output_hidden_states=True).hidden_states
            features = states[layer] if isinstance(layer, int) else torch.cat([states[i] for i in layer], dim=-1)
        return features[:, 1:] if self.config.vision_feature_select_strategy == "default" else features

    def embed(self, ids: Sequence[int]) -> torch.Tensor:
        """(T, D) embeddings of token ids."""
        return self.hf.get_input_embeddings()(torch.tensor(ids, dtype=torch.long, device=self.device))

    def embed_prompt(self, prompt: Prompt, image: torch.Tensor) -> torch.Tensor:
        """(T, D) embeddings of a whole prompt around packed image tokens (n, D)."""
        return torch.cat([self.embed(prompt.before), image.to(self.dtype), self.embed(prompt.after)])

    def last_states(self, sequences: Sequence[torch.Tensor]) -> torch.Tensor:
        """Hidden state at the last token of each (T_i, D) sequence, as (B, D).

        Sequences are padded on the right and need no mask: attention is causal, so the padding comes after everything
        that counts. With a mask, attention would leave its fast path and keep a (T, T) matrix.
        """
        lengths = [len(s) for s in sequences]
        batch = torch.nn.utils.rnn.pad_sequence(list(sequences), batch_first=True)
        return _at_the_end(
            self.hf.model.language_model(inputs_embeds=batch, use_cache=False).last_hidden_state, lengths
        )

    def differentiable_tokens(
        self, pixels: Sequence[torch.Tensor], sizes: Sequence[tuple[int, int]]
    ) -> list[torch.Tensor]:
        """As image_tokens, from normalised float pixels (tiles, 3, S, S) and with a gradient back to them.

        Layer by layer the activations are thrown away and computed again on the way back: what stays is one hidden
        state a layer, in place of everything inside it (a tenth of the memory).
        """
        flat = torch.cat(list(pixels)).to(self.device, self.dtype)
        if self.config.vision_feature_layer == -1:
            tower = self.hf.model.vision_tower
            inner = getattr(tower, "vision_model", tower)
            chunks = [
                _recomputed(inner.encoder.layers, inner.embeddings(chunk), attention_mask=None)
                for chunk in flat.split(VISION_CHUNK)
            ]
            features = torch.cat(chunks)
            features = features[:, 1:] if self.config.vision_feature_select_strategy == "default" else features
        else:
            features = torch.cat([_recomputed([self._vision], chunk) for chunk in flat.split(VISION_CHUNK)])
        return self._pack(features, [len(p) for p in pixels], sizes)

    def differentiable_last_states(self, sequences: Sequence[torch.Tensor]) -> torch.Tensor:
        """As last_states, with a gradient back to the sequences; activations as in differentiable_tokens."""
        batch = torch.nn.utils.rnn.pad_sequence(list(sequences), batch_first=True)
        text = self.hf.model.language_model
        positions = torch.arange(batch.shape[1], device=batch.device)[None]
        hidden = _recomputed(
            text.layers,
            batch,
            attention_mask=None,  # none at all is causal, see last_states
            position_ids=positions,
            position_embeddings=text.rotary_emb(batch, positions),
        )
        return text.norm(_at_the_end(hidden, [len(s) for s in sequences]))

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
        with torch.autocast(states.device.type, enabled=False):  # a model that is being trained may be read under one
            return states.float() @ rows.T + bias

    def prefix(self, before: tuple[int, ...], image: torch.Tensor) -> Prefix:
        """Prefill the text before the image and the image itself, once for all questions."""
        cache = _new_cache()
        embeddings = torch.cat([self.embed(before), image.to(self.dtype)])
        self.hf.model.language_model(inputs_embeds=embeddings[None], past_key_values=cache, use_cache=True)
        return Prefix(before, len(embeddings), _layers(cache))

    def states_after(self, prefix: Prefix, after: Sequence[int]) -> torch.Tensor:
        """Hidden states (T, D) at every token of a text that goes on from a prefix, which is not changed."""
        return self._read(_cache_of(prefix), after)

    def stepper(self, prefix: Prefix, after: Sequence[int]) -> Callable[[int | None], torch.Tensor]:
        """A function that reads on from a prefix: ``step(None)`` reads ``after``, ``step(token)`` one token more.

        Each call returns the hidden state (1, D) at the last token. The prefix itself is never changed.
        """
        cache = _cache_of(prefix)

        def step(token: int | None) -> torch.Tensor:
            return self._read(cache, after if token is None else [token])[-1:]

        return step

    def _read(self, cache: Any, ids: Sequence[int]) -> torch.Tensor:
        """(T, D) states of these tokens, which the cache then holds, too."""
        embeddings = self.embed(list(ids))[None]
        return self.hf.model.language_model(
            inputs_embeds=embeddings, past_key_values=cache, use_cache=True
        ).last_hidden_state[0]


def _at_the_end(hidden: torch.Tensor, lengths: Sequence[int]) -> torch.Tensor:
    """(B, T, D) states of sequences padded on the right -> (B, D) at each one's last token."""
    return hidden[torch.arange(len(lengths), device=hidden.device), torch.tensor(lengths, device=hidden.device) - 1]


def _recomputed(layers: Iterable[Callable[..., torch.Tensor]], hidden: torch.Tensor, **options: Any) -> torch.Tensor:
    """Apply layers in a row; on the way back each is run once more instead of having kept its activations."""
    for layer in layers:
        hidden = checkpoint(layer, hidden, use_reentrant=False, preserve_rng_state=False, **options)
    return hidden


def _new_cache() -> Any:
    from transformers import DynamicCache

    return DynamicCache()


def _cache_of(prefix: Prefix) -> Any:
    """A cache that begins with the prefix and leaves it as it is."""
    cache = _new_cache()
    for index, (keys, values) in enumerate(prefix.layers):
        cache.update(keys, values, index)
    return cache


def _layers(cache: Any) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return [(layer.keys, layer.values) for layer in cache.layers]
