"""The language model as one ONNX graph with its KV cache: a cache of length 0 is the prefill, then come the steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import TensorProto

from qsit_plugin.errors import WeightsError

from .onnx_graph import Graph

_MODEL = "language_model.model"
EMBEDDING = f"{_MODEL}.embed_tokens.weight"
HEAD = "language_model.lm_head.weight"


@dataclass(frozen=True)
class _Sequence:
    """What all layers share of B rows of T new tokens after P in the cache."""

    lengths: str
    """(B, T), as a shape."""
    cos: str
    sin: str
    """(B, T, head size / 2) of the rotary positions."""
    visible: str
    """Boolean (B, 1, T, P + T): False at padding; what is to come is left out by the causal mask."""


def add_language(graph: Graph, config: Any, frequencies: np.ndarray) -> bytes:
    """The graph of a Qwen2 model and its head.

    ``embeddings``: float32 (B, T, D). ``positions``: int64 (B, T). ``visible``: boolean (B, P + T), False at padding.
    ``past_key_0``, ``past_value_0`` and so on: float32 (B, key-value heads, P, head size), the cache of each layer.
    -> ``logits``: float32 (B, V), after the last token only, and ``present_key_0`` ... (B, heads, P + T, head size).

    Only the logits after the last token are ever wanted, so the last layer computes keys and values of all tokens, but
    its attention and its linear layers at the last one.

    Args:
        config: the checkpoint's LlavaOnevisionConfig.
        frequencies: float32 (head size / 2), those of the rotary positions as the model computes with them.

    Raises:
        WeightsError: a setting that has no operator here.
    """
    text = config.text_config
    heads, size = text.num_key_value_heads, head_size(text)
    sequence, last = _sequences(graph, frequencies)
    states = graph.reshape("embeddings", [-1, text.hidden_size])
    for layer in range(text.num_hidden_layers):
        asked = last if layer == text.num_hidden_layers - 1 else sequence
        states = _layer(graph, states, layer, text, sequence, asked)
    states = _norm(graph, states, f"{_MODEL}.norm", text)
    head = EMBEDDING if text.tie_word_embeddings else HEAD
    graph.add("Gemm", states, graph.weight(head), transB=1, outputs=["logits"])
    inputs: dict[str, tuple[int, list[Any]]] = {
        "embeddings": (TensorProto.FLOAT, ["rows", "new", text.hidden_size]),
        "positions": (TensorProto.INT64, ["rows", "new"]),
        "visible": (TensorProto.BOOL, ["rows", "all"]),
    }
    outputs: dict[str, list[Any]] = {"logits": ["rows", text.vocab_size]}
    for layer in range(text.num_hidden_layers):
        for part in ("key", "value"):
            inputs[f"past_{part}_{layer}"] = (TensorProto.FLOAT, ["rows", heads, "past", size])
            outputs[f"present_{part}_{layer}"] = ["rows", heads, "all", size]
    return graph.model(inputs, outputs)


def head_size(text: Any) -> int:
    """Numbers of a key or value of one head."""
    return int(getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads)


def frequencies_of(model: Any) -> np.ndarray:
    """Float32 (head size / 2): the rotary frequencies of an opened model. Raises WeightsError where they are scaled."""
    rotary = model.model.language_model.rotary_emb
    kind = getattr(rotary, "rope_type", "default")
    if kind != "default":
        raise WeightsError(f"rotary positions of type {kind!r} cannot be exported, only those of type 'default'")
    return rotary.inv_freq.detach().cpu().float().numpy()


def _sequences(graph: Graph, frequencies: np.ndarray) -> tuple[_Sequence, _Sequence]:
    """Of all new tokens, and of the last one of each row."""
    angles = graph.add("Cast", "positions", to=TensorProto.FLOAT)
    angles = graph.add("Unsqueeze", angles, graph.constant([-1]))
    angles = graph.add("Mul", angles, graph.constant(frequencies.reshape(1, 1, -1), np.float32))
    cos, sin = graph.add("Cos", angles), graph.add("Sin", angles)
    lengths, one = graph.add("Shape", "positions"), graph.constant([1])
    rows, new = (graph.add("Slice", lengths, graph.constant([n]), graph.constant([n + 1])) for n in range(2))
    visible = graph.add("Unsqueeze", "visible", graph.constant([1, 2]))  # (B, 1, 1, P + T)
    repeated = graph.add("Expand", visible, graph.add("Concat", one, one, new, one, axis=0))
    sequence = _Sequence(lengths, cos, sin, repeated)
    single = graph.add("Concat", rows, one, axis=0)
    return sequence, _Sequence(single, _last(graph, cos), _last(graph, sin), visible)


def _layer(graph: Graph, states: str, layer: int, text: Any, sequence: _Sequence, asked: _Sequence) -> str:
    """(B * T, D) -> (B * T, D), or (B, D) where only the last tokens are ``asked`` for."""
    name, width, size = f"{_MODEL}.layers.{layer}", text.hidden_size, head_size(text)
    heads, groups = text.num_attention_heads, text.num_key_value_heads
    before = _norm(graph, states, f"{name}.input_layernorm", text)
    keys = _heads(graph, graph.linear(before, f"{name}.self_attn.k_proj"), sequence, groups * size)
    values = _heads(graph, graph.linear(before, f"{name}.self_attn.v_proj"), sequence, groups * size)
    if asked is not sequence:
        before, states = (
            graph.reshape(_last(graph, _heads(graph, part, sequence, width)), [-1, width]) for part in (before, states)
        )
    queries = _heads(graph, graph.linear(before, f"{name}.self_attn.q_proj"), asked, heads * size)
    seen = graph.add(
        "Attention",
        graph.add("RotaryEmbedding", queries, asked.cos, asked.sin, num_heads=heads),
        graph.add("RotaryEmbedding", keys, sequence.cos, sequence.sin, num_heads=groups),
        values,
        asked.visible,
        f"past_key_{layer}",
        f"past_value_{layer}",
        outputs=[f"attention_{layer}", f"present_key_{layer}", f"present_value_{layer}"],
        q_num_heads=heads,
        kv_num_heads=groups,
        is_causal=int(asked is sequence),  # the last token sees all others
    )
    attended = graph.linear(graph.reshape(seen, [-1, heads * size]), f"{name}.self_attn.o_proj")
    states = graph.add("Add", states, attended)
    after = _norm(graph, states, f"{name}.post_attention_layernorm", text)
    gate = graph.activation(graph.linear(after, f"{name}.mlp.gate_proj"), text.hidden_act)
    hidden = graph.add("Mul", gate, graph.linear(after, f"{name}.mlp.up_proj"))
    return graph.add("Add", states, graph.linear(hidden, f"{name}.mlp.down_proj"))


def _heads(graph: Graph, states: str, sequence: _Sequence, width: int) -> str:
    """(B * T, width) -> (B, T, width)."""
    shape = graph.add("Concat", sequence.lengths, graph.constant([width]), axis=0)
    return graph.add("Reshape", states, shape)


def _last(graph: Graph, states: str) -> str:
    """(B, T, ...) -> (B, 1, ...), the last token's."""
    bounds = graph.constant([-1]), graph.constant([np.iinfo(np.int64).max]), graph.constant([1])
    return graph.add("Slice", states, *bounds)


def _norm(graph: Graph, states: str, name: str, text: Any) -> str:
    return graph.add("RMSNormalization", states, graph.weight(f"{name}.weight"), axis=-1, epsilon=text.rms_norm_eps)
