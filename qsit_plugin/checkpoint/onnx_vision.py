"""The vision tower and the projector as an ONNX graph: tiles in, their patches as the language model sees them out."""

from __future__ import annotations

from typing import Any

from onnx import TensorProto

from qsit_plugin.errors import WeightsError

from .onnx_graph import Graph

_TOWER = "vision_tower.vision_model"


def add_vision(graph: Graph, config: Any) -> bytes:
    """The graph of a SigLIP tower up to the configured layer, and of the projector.

    ``pixels``: float32 (N, 3, S, S), normalised -> ``features``: float32 (N, patches, D), D the language model's width.

    Args:
        config: the checkpoint's LlavaOnevisionConfig.

    Raises:
        WeightsError: a setting that has no operator here.
    """
    vision = config.vision_config
    if config.vision_feature_select_strategy != "full":
        raise WeightsError(
            f"vision_feature_select_strategy {config.vision_feature_select_strategy!r} cannot be exported, only 'full'"
        )
    width, side, patches = vision.hidden_size, vision.image_size, (vision.image_size // vision.patch_size) ** 2
    layers, chosen = vision.num_hidden_layers, config.vision_feature_layer
    wanted = [layer % (layers + 1) for layer in ([chosen] if isinstance(chosen, int) else chosen)]
    states = [_embedded(graph, vision, width)]
    for layer in range(max(wanted)):
        states.append(_layer(graph, states[-1], f"{_TOWER}.encoder.layers.{layer}", vision, patches))
    found = [states[layer] for layer in wanted]  # before post_layernorm, as hidden_states hold them
    features = found[0] if len(found) == 1 else graph.add("Concat", *found, axis=-1)
    hidden = graph.linear(features, "multi_modal_projector.linear_1")
    hidden = graph.activation(hidden, config.projector_hidden_act)
    hidden = graph.linear(hidden, "multi_modal_projector.linear_2")
    text = config.text_config.hidden_size
    graph.add("Reshape", hidden, graph.constant([-1, patches, text]), outputs=["features"])
    pixels = (TensorProto.FLOAT, ["tiles", vision.num_channels, side, side])
    return graph.model({"pixels": pixels}, {"features": ["tiles", patches, text]})


def _embedded(graph: Graph, vision: Any, width: int) -> str:
    """(N * patches, width): every patch through one convolution, and its learned position."""
    name = f"{_TOWER}.embeddings.patch_embedding"
    strides = [vision.patch_size] * 2
    planes = graph.add("Conv", "pixels", graph.weight(f"{name}.weight"), graph.weight(f"{name}.bias"), strides=strides)
    rows = graph.add("Transpose", graph.reshape(planes, [0, width, -1]), perm=[0, 2, 1])
    placed = graph.add("Add", rows, graph.weight(f"{_TOWER}.embeddings.position_embedding.weight"))
    return graph.reshape(placed, [-1, width])


def _layer(graph: Graph, states: str, name: str, vision: Any, patches: int) -> str:
    """(N * patches, width) -> the same: attention within each tile, then two linear layers."""
    width, heads = vision.hidden_size, vision.num_attention_heads
    before = _norm(graph, states, f"{name}.layer_norm1", vision)
    parts = [
        graph.reshape(graph.linear(before, f"{name}.self_attn.{part}_proj"), [-1, patches, width]) for part in "qkv"
    ]
    seen = graph.add("Attention", *parts, q_num_heads=heads, kv_num_heads=heads)
    attended = graph.linear(graph.reshape(seen, [-1, width]), f"{name}.self_attn.out_proj")
    states = graph.add("Add", states, attended)
    hidden = graph.linear(_norm(graph, states, f"{name}.layer_norm2", vision), f"{name}.mlp.fc1")
    hidden = graph.linear(graph.activation(hidden, vision.hidden_act), f"{name}.mlp.fc2")
    return graph.add("Add", states, hidden)


def _norm(graph: Graph, states: str, name: str, vision: Any) -> str:
    weights = graph.weight(f"{name}.weight"), graph.weight(f"{name}.bias")
    return graph.add("LayerNormalization", states, *weights, axis=-1, epsilon=vision.layer_norm_eps)
