"""The neural network behind a look: tiles -> image tokens -> logits. The only file that knows transformers' modules.

Shapes: B images, T tokens of a sequence, D width of the language model, V size of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from ..tiling import Tiling
from .ambient import without_autocast
from .linear import linear, linear_gelu

if TYPE_CHECKING:
    from PIL import Image

VISION_CHUNK = 64
"""Tiles that go through the vision tower at once: more cost memory and gain nothing on any device we know."""

CPU_PATCHES = 2048
"""On a CPU, patches of the tiles that go through at once: more gain nothing, and their activations leave its caches."""

ROOM = 64
"""Tokens by which the memory of a sequence grows when it is full."""


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
    layers: list[tuple[torch.Tensor, torch.Tensor]]  # one (keys, values) a layer, each (heads, length, head size)


class Network:
    """Runs a ``LlavaOnevisionForConditionalGeneration``; holds no state beside it, so it may be shared."""

    def __init__(self, model: Any, tiling: Tiling):
        self.hf = model
        self.tiling = tiling
        self.config = model.config
        strange = {type(block).__name__ for block in model.model.language_model.layers} - {"Qwen2DecoderLayer"}
        if strange:
            raise ValueError(
                f"the language model is made of {sorted(strange)}, and only those of Qwen2 are known: give a "
                "checkpoint of LLaVA-OneVision with Qwen2, as all of Q-SiT's are"
            )

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
        whole = torch.cat(list(tiles)).to(self.device)  # bytes; floats only for the tiles in work
        parts = [self._vision(self.tiling.normalise(part).to(self.dtype)) for part in whole.split(self._chunk)]
        features = torch.cat(parts)
        return self._pack(features, [len(t) for t in tiles], sizes)

    def look_at(self, picture: Image.Image) -> torch.Tensor:
        """Packed image tokens (n, D) of one RGB picture."""
        return self.image_tokens([self.tiling.cut(picture)], [picture.size])[0]

    @property
    def _chunk(self) -> int:
        """Tiles that go through the vision tower at once."""
        return max(1, CPU_PATCHES // self.tiling.side**2) if self.device.type == "cpu" else VISION_CHUNK

    def _pack(
        self, features: torch.Tensor, counts: Sequence[int], sizes: Sequence[tuple[int, int]]
    ) -> list[torch.Tensor]:
        """Features of all tiles (N, patches, width) -> packed image tokens, one (n, D) tensor an image."""
        projector = self.hf.model.multi_modal_projector
        projected = linear(projector.linear_2, projector.act(linear(projector.linear_1, features)))
        return [self._packed(own, *size) for own, size in zip(projected.split(list(counts)), sizes, strict=True)]

    def _packed(self, tiles: torch.Tensor, width: int, height: int) -> torch.Tensor:
        """One image's projected features (1 + rows * columns, patches, D) -> its tokens (n, D)."""
        rows, columns = self.tiling.unpadded(width, height)[2:]
        picture = tiles.flatten(0, 1).index_select(0, self.tiling.feature_index(width, height, tiles.device))
        picture = picture.view(rows, columns, tiles.shape[-1])  # a thin picture may leave no row
        reduced = self.tiling.features(width, height)
        if reduced != (rows, columns):
            planes = picture.permute(2, 0, 1)[None]
            picture = functional.interpolate(planes, list(reduced), mode="bilinear")[0].permute(1, 2, 0)
        newline = self.hf.model.image_newline.to(picture).expand(len(picture), 1, -1)
        return torch.cat([tiles[0], torch.cat([picture, newline], 1).flatten(0, 1)])

    def _vision(self, pixels: torch.Tensor) -> torch.Tensor:
        """(N, 3, S, S) normalised pixels -> (N, patches, width) features of the configured layer.

        Layer -1 is the encoder's output *before* ``post_layernorm`` (that is what hidden_states[-1] holds), so the
        encoder is called directly and no other layer's states are kept: 1.7 GB less for a 37-tile image at full size.
        """
        tower = self.hf.model.vision_tower
        layer = self.config.vision_feature_layer
        if layer == -1:
            inner = getattr(tower, "vision_model", tower)  # transformers 4 wraps the tower once more
            features = inner.embeddings(pixels)
            for block in inner.encoder.layers:
                plain = type(block).__name__ == "SiglipEncoderLayer"
                features = _vision_layer(block, features) if plain else block(features, attention_mask=None)
        else:
            states = tower(pixels, output_hidden_states=True).hidden_states
            features = states[layer] if isinstance(layer, int) else torch.cat([states[i] for i in layer], dim=-1)
        return features[:, 1:] if self.config.vision_feature_select_strategy == "default" else features

    def embed(self, ids: Sequence[int]) -> torch.Tensor:
        """(T, D) embeddings of token ids."""
        return self.hf.get_input_embeddings()(torch.tensor(ids, dtype=torch.long, device=self.device))

    def embed_prompts(self, prompt: Prompt, images: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """(T_i, D) embeddings of the whole prompt around the packed image tokens (n_i, D) of each image."""
        before, after = self.embed(prompt.before), self.embed(prompt.after)  # goes to the device once for all images
        return [torch.cat([before, image.to(self.dtype), after]) for image in images]

    def last_states(self, sequences: Sequence[torch.Tensor]) -> torch.Tensor:
        """Hidden state at the last token of each (T_i, D) sequence, as (B, D). Nothing is padded, see ``_read``."""
        return self._read(torch.cat(list(sequences)), [len(s) for s in sequences], None)

    def _read(
        self, hidden: torch.Tensor, lengths: Sequence[int], memory: _Memory | None, *, every: bool = False
    ) -> torch.Tensor:
        """Read sequences that lie one after the other, (sum of lengths, D), and return their last states (B, D).

        Everything but attention works on all tokens of all sequences at once; attention takes one sequence after the
        other, so that nothing is padded and no (T, T) mask exists. From the last layer on only each sequence's last
        token is followed: of the others, just keys and values are needed there.

        ``memory``: keys and values of what was read before (one sequence only); it learns this one's. ``every``: the
        states at every token, (sum of lengths, D), instead.
        """
        text = self.hf.model.language_model
        before = memory.length if memory else 0
        positions = torch.cat([torch.arange(n, device=hidden.device) for n in lengths]) + before
        cos, sin = text.rotary_emb(hidden[None], positions[None])
        ends = torch.tensor(lengths, device=hidden.device).cumsum(0) - 1
        for index, block in enumerate(text.layers):
            final = index == len(text.layers) - 1 and not every
            attention, normed = block.self_attn, block.input_layernorm(hidden)
            size = attention.head_dim
            keys = _rotated(_heads(linear(attention.k_proj, normed), size), cos, sin)
            values = _heads(linear(attention.v_proj, normed), size)
            if memory:
                keys, values = memory.learn(index, keys, values)
            if final:
                hidden, normed, cos, sin = hidden[ends], normed[ends], cos[:, ends], sin[:, ends]
            queries = _rotated(_heads(linear(attention.q_proj, normed), size), cos, sin)
            steps = [1] * len(lengths) if final else lengths
            spans = [before + n for n in lengths]
            mixed = _attend(queries.split(list(steps), 1), keys.split(spans, 1), values.split(spans, 1))
            hidden = hidden + linear(attention.o_proj, mixed)
            normed, mlp = block.post_attention_layernorm(hidden), block.mlp
            hidden = hidden + linear(
                mlp.down_proj, mlp.act_fn(linear(mlp.gate_proj, normed)) * linear(mlp.up_proj, normed)
            )
        if memory:
            memory.length += sum(lengths)
        return text.norm(hidden)

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
        with without_autocast(states.device):  # a model in training is read under autocast
            return states.float() @ rows.T + bias

    def prefix(self, before: tuple[int, ...], image: torch.Tensor) -> Prefix:
        """Prefill the text before the image and the image itself, once for all questions."""
        embeddings = torch.cat([self.embed(before), image.to(self.dtype)])
        memory = _Memory()
        self._read(embeddings, [len(embeddings)], memory)
        return Prefix(before, len(embeddings), memory.layers)

    def states_after(self, prefix: Prefix, after: Sequence[int]) -> torch.Tensor:
        """Hidden states (T, D) at every token of a text that goes on from a prefix, which is not changed."""
        return self._read(self.embed(after), [len(after)], _memory_of(prefix, len(after)), every=True)

    def stepper(self, prefix: Prefix, after: Sequence[int]) -> Callable[[int | None], torch.Tensor]:
        """A function that reads on from a prefix: ``step(None)`` reads ``after``, ``step(token)`` one token more.

        Each call returns the hidden state (1, D) at the last token. The prefix itself is never changed.
        """
        memory = _memory_of(prefix, len(after) + ROOM)

        def step(token: int | None) -> torch.Tensor:
            ids = list(after) if token is None else [token]
            return self._read(self.embed(ids), [len(ids)], memory)

        return step


class _Memory:
    """Keys and values of one sequence, layer by layer, with room to grow in: one token more copies nothing."""

    def __init__(self, layers: Iterable[tuple[torch.Tensor, torch.Tensor]] = (), length: int = 0):
        self.layers = list(layers)
        self.length = length

    def learn(self, index: int, keys: torch.Tensor, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Take in one layer's (heads, T, head size) and return all that this layer has read by now."""
        if index == len(self.layers):
            self.layers.append((keys, values))
            return keys, values
        end = self.length + keys.shape[1]
        if self.layers[index][0].shape[1] < end:
            room = keys.shape[1] + ROOM
            self.layers[index] = (_grown(self.layers[index][0], room), _grown(self.layers[index][1], room))
        kept_keys, kept_values = self.layers[index]
        kept_keys[:, self.length : end] = keys
        kept_values[:, self.length : end] = values
        return kept_keys[:, :end], kept_values[:, :end]


def _memory_of(prefix: Prefix, room: int) -> _Memory:
    """A memory that begins with the prefix and leaves it as it is."""
    return _Memory([(_grown(k, room), _grown(v, room)) for k, v in prefix.layers], prefix.length)


def _grown(kept: torch.Tensor, room: int) -> torch.Tensor:
    """A copy of (heads, T, head size) with room for more tokens behind."""
    larger = kept.new_empty(kept.shape[0], kept.shape[1] + room, kept.shape[2])
    larger[:, : kept.shape[1]] = kept
    return larger


def _heads(x: torch.Tensor, size: int) -> torch.Tensor:
    """(..., T, heads * size) -> (..., heads, T, size)."""
    return x.unflatten(-1, (-1, size)).transpose(-2, -3)


def _rotated(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotary position embedding of (heads, T, size) by (1, T, size)."""
    first, second = x.chunk(2, -1)
    return x * cos + torch.cat([-second, first], -1) * sin


def _attend(
    queries: Sequence[torch.Tensor], keys: Sequence[torch.Tensor], values: Sequence[torch.Tensor]
) -> torch.Tensor:
    """Causal attention inside each sequence: (heads, T_i, size) each -> (sum of T_i, heads * size).

    The queries stand at the end of their keys. Fewer heads of keys than of queries are shared by groups.
    """
    mixed = []
    for q, k, v in zip(queries, keys, values, strict=True):
        groups, asked, known = q.shape[0] // k.shape[0], q.shape[1], k.shape[1]
        partly = 1 < asked < known  # only then a mask is needed, and masked attention shares no heads on its fast path
        if groups > 1 and (partly or q.device.type == "mps"):
            k, v, groups = k.repeat_interleave(groups, 0), v.repeat_interleave(groups, 0), 1
        mask = torch.ones(asked, known, dtype=torch.bool, device=q.device).tril(known - asked) if partly else None
        out = functional.scaled_dot_product_attention(
            q[None], k[None], v[None], attn_mask=mask, is_causal=1 < asked == known, enable_gqa=groups > 1
        )
        mixed.append(out[0].transpose(0, 1).flatten(1))
    return torch.cat(mixed)


def _vision_layer(block: Any, hidden: torch.Tensor) -> torch.Tensor:
    """One SigLIP layer, (N, patches, width) -> the same."""
    attention, mlp, normed = block.self_attn, block.mlp, block.layer_norm1(hidden)
    parts = (attention.q_proj, attention.k_proj, attention.v_proj)
    q, k, v = (_heads(linear(part, normed), attention.head_dim) for part in parts)
    mixed = functional.scaled_dot_product_attention(q, k, v, scale=attention.scale)
    hidden = hidden + linear(attention.out_proj, mixed.transpose(1, 2).flatten(2))
    normed = block.layer_norm2(hidden)
    if mlp.config.hidden_act == "gelu_pytorch_tanh":
        inner = linear_gelu(mlp.fc1, normed)
    else:
        inner = mlp.activation_fn(linear(mlp.fc1, normed))
    return hidden + linear(mlp.fc2, inner)


def _at_the_end(hidden: torch.Tensor, lengths: Sequence[int]) -> torch.Tensor:
    """(B, T, D) states of sequences padded on the right -> (B, D) at each one's last token."""
    return hidden[torch.arange(len(lengths), device=hidden.device), torch.tensor(lengths, device=hidden.device) - 1]


def _recomputed(layers: Iterable[Callable[..., torch.Tensor]], hidden: torch.Tensor, **options: Any) -> torch.Tensor:
    """Apply layers in a row; on the way back each is run once more instead of having kept its activations."""
    for layer in layers:
        hidden = checkpoint(layer, hidden, use_reentrant=False, preserve_rng_state=False, **options)
    return hidden
