"""Checks of ``config.json``, before transformers builds anything from it.

Two kinds of rules: settings that this package computes with must be of the right kind, and the model that they describe
must not be larger than the weights beside it, which bounds time and memory by the size of a file that is there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qsit_plugin.weights.errors import WeightsError, short
from qsit_plugin.weights.headers import Stored

MOST_POINTS = 1024
"""Grid points of a checkpoint; the published ones have 36."""

LARGEST_CANVAS = 2**25
"""Pixels of a grid point: 100 MB as bytes. The published checkpoints' largest has 2304 x 2304, a sixth of it."""

MOST_LABELS = 10_000

ACTIVATIONS = ("hidden_act", "projector_hidden_act")
_SIZES = {  # settings that shapes follow from, with what transformers takes where they are not written
    "text_config": {
        "hidden_size": 4096,
        "intermediate_size": 22016,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "vocab_size": 151936,
    },
    "vision_config": {
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "num_channels": 3,
        "image_size": 224,
        "patch_size": 16,
    },
}
_TOWER = {
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_hidden_layers": 26,
    "num_attention_heads": 16,
    "image_size": 384,
    "patch_size": 14,
}
"""What stands for a vision_config that is not there at all."""

_MODELS = {"text_config": "qwen2", "vision_config": "siglip_vision_model"}
_NUMBERS = ("rms_norm_eps", "layer_norm_eps", "attention_dropout", "initializer_range")
_MAPPINGS = ("rope_parameters", "rope_scaling")


def check_config(content: Mapping[str, Any], path: Path, stored: Mapping[str, Stored]) -> None:
    """Raise WeightsError, naming every setting at fault, unless a LLaVA-OneVision config can be built and is no larger
    than its weights.

    Args:
        content: the parsed ``config.json`` of ``path``.
        stored: the tensors of the files beside it, see headers.py.
    """
    problems = _part_problems(content)
    problems = problems or _outer_problems(content) or _excess(content, stored)
    if problems:
        raise WeightsError(f"{path}: {'; '.join(problems)}. Copy the file again from where the checkpoint was made")


def refuse_quantized(content: Mapping[str, Any], path: Path) -> None:
    """Raise WeightsError for a checkpoint whose weights were reduced when it was saved."""
    parts = [content, *(content.get(name) for name in _SIZES)]
    for part in parts:
        settings = part.get("quantization_config") if isinstance(part, Mapping) else None
        if settings is not None:
            method = settings.get("quant_method", "an unknown kind") if isinstance(settings, Mapping) else settings
            raise WeightsError(
                f"{path} has a quantization_config ({short(method)}): such checkpoints are not read. Take the one it "
                "was made from, with weights in float32, float16 or bfloat16, and where memory is short load that "
                'with quantization="8bit" or "4bit". If these weights are floats, delete the entry'
            )


def point_problem(points: Any) -> str | None:
    """What is wrong with a list of grid points, as the end of a sentence; None when it can be used."""
    if not isinstance(points, (list, tuple)) or not points or len(points) > MOST_POINTS:
        many = f"{len(points):,} of them" if isinstance(points, (list, tuple)) else short(points)
        return f"must be a list of 1 to {MOST_POINTS} pairs (height, width); got {many}"
    for point in points:
        if not isinstance(point, (list, tuple)) or len(point) != 2 or not all(is_whole(side, 1) for side in point):
            return f"must hold pairs (height, width) of whole numbers from 1 on; got {short(point)}"
        if point[0] * point[1] > LARGEST_CANVAS:
            return f"must hold pairs of at most {LARGEST_CANVAS:,} pixels; got {short(point)}"
    return None


def is_whole(value: Any, least: int, below: int = 2**31) -> bool:
    """Whether it is a whole number from ``least`` on; True and False, which Python counts as 1 and 0, are none."""
    return isinstance(value, int) and not isinstance(value, bool) and least <= value < below


def end_ids_problem(value: Any, vocabulary: int) -> str | None:
    """What is wrong with an ``eos_token_id``, as the end of a sentence; None when it can be used."""
    ids = value if isinstance(value, list) else [] if value is None else [value]
    if all(is_whole(one, 0, vocabulary) for one in ids):
        return None
    return f"must be a token of the vocabulary, 0 to {vocabulary - 1}, or a list of them; got {short(value)}"


def _part_problems(content: Mapping[str, Any]) -> list[str]:
    """Of the two inner configs alone: are they there, of the known models, and are their sizes numbers."""
    problems = []
    for name, sizes in _SIZES.items():
        part = content.get(name)
        if part is None:
            continue
        if not isinstance(part, dict):
            problems.append(f"{name} must be an object; got {short(part)}")
            continue
        if part.get("model_type", _MODELS[name]) != _MODELS[name]:
            problems.append(f"{name} is a {short(part['model_type'])}, and only {_MODELS[name]!r} is known")
        for key in sizes:
            if key in part and not is_whole(part[key], 1):
                problems.append(f"{name}.{key} must be a whole number from 1 on; got {short(part[key])}")
        for key in _NUMBERS:
            value = part.get(key)
            if value is not None and not (_is_number(value) and value >= 0):
                problems.append(f"{name}.{key} must be a number from 0 on; got {short(value)}")
        for key in _MAPPINGS:
            if not isinstance(part.get(key), (dict, type(None))):
                problems.append(f"{name}.{key} must be an object; got {short(part[key])}")
        nested = part.get("rope_parameters")
        nested = nested.get("rope_theta") if isinstance(nested, dict) else None
        for theta in (part.get("rope_theta"), nested):
            if theta is not None and not (_is_number(theta) and theta > 0):
                problems.append(f"{name}.rope_theta must be a number above 0; got {short(theta)}")
        problems += [f"{name}.{problem}" for problem in _plain_problems(part)]
    return problems


def _outer_problems(content: Mapping[str, Any]) -> list[str]:
    text, vision = _part(content, "text_config"), _part(content, "vision_config")
    problems = _plain_problems(content)
    heads, groups, size = text["num_attention_heads"], text.get("num_key_value_heads"), text.get("head_dim")
    if groups is not None and (not is_whole(groups, 1) or heads % groups):
        problems.append(f"text_config.num_key_value_heads must divide num_attention_heads {heads}; got {short(groups)}")
    if size is None and text["hidden_size"] % heads:
        problems.append(f"text_config.num_attention_heads {heads} does not divide hidden_size {text['hidden_size']}")
    elif not is_whole(_head_size(text), 2) or _head_size(text) % 2:
        problems.append(f"text_config.head_dim must be an even number; got {short(size)}")
    if vision["hidden_size"] % vision["num_attention_heads"]:
        problems.append(
            f"vision_config.num_attention_heads {vision['num_attention_heads']} does not divide hidden_size "
            f"{vision['hidden_size']}"
        )
    if vision["patch_size"] > vision["image_size"]:
        problems.append(f"vision_config.patch_size {vision['patch_size']} is above image_size {vision['image_size']}")
    if (problem := _layer_problem(content.get("vision_feature_layer", -1), vision["num_hidden_layers"])) is not None:
        problems.append(problem)
    points = content.get("image_grid_pinpoints")
    if points is not None and (problem := point_problem(points)) is not None:
        problems.append(f"image_grid_pinpoints {problem}")
    if (problem := end_ids_problem(text.get("eos_token_id"), text["vocab_size"])) is not None:
        problems.append(f"text_config.eos_token_id {problem}")
    return problems


def _layer_problem(value: Any, layers: int) -> str | None:
    """hidden_states holds the embeddings and then every layer's output: layers + 1 of them, counted from either end."""
    chosen = value if isinstance(value, list) else [value]
    if 0 < len(chosen) <= layers + 1 and all(is_whole(layer, -layers - 1, layers + 1) for layer in chosen):
        return None
    return f"vision_feature_layer must be a layer of the vision tower, {-layers - 1} to {layers}; got {short(value)}"


def _plain_problems(part: Mapping[str, Any]) -> list[str]:
    """Of settings that stand in the outer config and in the inner ones."""
    from transformers.activations import ACT2FN

    problems = [
        f"{key} must be an activation that transformers knows; got {short(part[key])}"
        for key in ACTIVATIONS
        if key in part and not (isinstance(part[key], str) and part[key] in ACT2FN)
    ]
    if not isinstance(part.get("tie_word_embeddings"), (bool, type(None))):
        problems.append(f"tie_word_embeddings must be true or false; got {short(part['tie_word_embeddings'])}")
    labels = part.get("num_labels")  # of no use here, and transformers makes a name for each
    if labels is not None and not is_whole(labels, 0, MOST_LABELS):
        problems.append(f"num_labels must be a whole number below {MOST_LABELS}; got {short(labels)}")
    return problems


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _excess(content: Mapping[str, Any], stored: Mapping[str, Stored]) -> list[str]:
    """Where the config claims more than the files hold. Fewer is not looked for: transformers names what is missing."""
    text, vision = _part(content, "text_config"), _part(content, "vision_config")
    problems = []
    for name, part in (("text_config", text), ("vision_config", vision)):
        layers = _stored_layers(stored, vision=name == "vision_config")
        if part["num_hidden_layers"] > layers:
            problems.append(
                f"{name}.num_hidden_layers is {part['num_hidden_layers']}, the weights have {layers} layers"
            )
    if problems:
        return problems
    claimed, held = _parameters(text, vision), sum(tensor.size for tensor in stored.values())
    if claimed > held:
        problems.append(f"its sizes mean a model of {claimed:,} weights and more, the files hold {held:,}")
    return problems


def _stored_layers(stored: Mapping[str, Stored], *, vision: bool) -> int:
    names = (re.search(r"layers\.(\d{1,9})\.", name) for name in stored if ("vision_tower" in name) == vision)
    return len({match[1] for match in names if match})


def _head_size(text: Mapping[str, Any]) -> Any:
    size = text.get("head_dim")
    return text["hidden_size"] // text["num_attention_heads"] if size is None else size


def _parameters(text: Mapping[str, Any], vision: Mapping[str, Any]) -> int:
    """A lower bound: matrices without biases, without those of keys and values, one token table."""
    width, eye = text["hidden_size"], vision["hidden_size"]
    attention = 2 * width * text["num_attention_heads"] * _head_size(text)
    language = text["num_hidden_layers"] * (attention + 3 * width * text["intermediate_size"])
    tower = vision["num_hidden_layers"] * (4 * eye**2 + 2 * eye * vision["intermediate_size"])
    patches = (vision["image_size"] // vision["patch_size"]) ** 2 + vision["num_channels"] * vision["patch_size"] ** 2
    return language + tower + patches * eye + text["vocab_size"] * width + width * eye + width**2


def _part(content: Mapping[str, Any], name: str) -> dict[str, Any]:
    """An inner config with transformers' defaults for what is not written."""
    given = content.get(name)
    if given is None:
        given = _TOWER if name == "vision_config" else {}
    return {**_SIZES[name], **given}
