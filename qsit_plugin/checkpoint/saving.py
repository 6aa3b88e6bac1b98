"""Writes a checkpoint folder that transformers 4.57 and 5.x both load, with equal logits and without this package.

Left to themselves the two generations do not read each other: 5.x drops ``vision_model`` from the vision tower's key
names, keeps rope_theta only inside ``rope_parameters``, names a tokenizer class that 4.x has not got, and writes no
separate image-processor config. Every checkpoint that this project writes goes through ``save_portable``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors.torch import save_file

from qsit_plugin.weights.golden import FILE_NAME as GOLDEN_NAME

from ..protocol import FILE_NAME as PROFILE_NAME
from ..protocol import ScoreProfile
from .onnx_record import FILES as GRAPHS

if TYPE_CHECKING:
    from transformers import LlavaOnevisionForConditionalGeneration, PreTrainedTokenizerBase

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] if part['type'] == 'image' %}{{ '<image>\\n' }}{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'video' %}{{ '<video>\\n' }}{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] }}{% endfor %}"
    "{% endif %}{{ '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
"""Images first whatever the order in the message, no system turn, as Q-SiT's own template renders."""

SHARD_SIZE = "5GB"

LAYOUT = "4.57.1"
"""The transformers version whose layout we write. Later 4.57 releases warn of a broken Mistral tokenizer unless the
version in config.json is at most 4.57.2 or at least 5."""

_RENAMED = (  # module prefix in the model, prefix in the file; the first match wins
    ("model.vision_tower.vision_model.", "vision_tower.vision_model."),
    ("model.vision_tower.", "vision_tower.vision_model."),
    ("model.language_model.", "language_model.model."),
    ("model.multi_modal_projector.", "multi_modal_projector."),
    ("model.image_newline", "image_newline"),
    ("lm_head.", "language_model.lm_head."),
)


def save_portable(
    model: LlavaOnevisionForConditionalGeneration,
    tokenizer: PreTrainedTokenizerBase,
    folder: str | Path,
    *,
    profile: ScoreProfile | None,
    preprocessor: Mapping[str, Any],
    chat_template: str,
    dtype: torch.dtype | None = None,
) -> Path:
    """Write ``model`` as a complete checkpoint folder and return the folder.

    Args:
        profile: saved as ``qsit.json``; None writes none, and the checkpoint is then read with the official profile.
        preprocessor: a parsed ``preprocessor_config.json`` (mean, std, size, grid points, ``do_*`` flags).
        dtype: of the saved weights; None keeps the model's.

    Raises:
        ValueError: for a tokenizer without a fast backend, and for weights that are not plain LLaVA-OneVision
            (an adapter that was not merged, for example).
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tokens = tokenizer_files(tokenizer)
    config = portable_config(model.config, dtype or model.dtype)
    weights = portable_weights(model.state_dict(), tied=config["text_config"]["tie_word_embeddings"], dtype=dtype)
    for stale in (*folder.glob("*.safetensors*"), *(folder / name for name in (PROFILE_NAME, GOLDEN_NAME, *GRAPHS))):
        stale.unlink(missing_ok=True)
    _write_weights(folder, weights)
    _write_json(folder / "config.json", config)
    _write_json(folder / "generation_config.json", _generation_config(model, tokenizer))
    for name, content in {**tokens, **processor_files(config, preprocessor)}.items():
        _write_json(folder / name, content)
    (folder / "chat_template.jinja").write_text(chat_template, encoding="utf-8")
    _write_json(folder / "chat_template.json", {"chat_template": chat_template})
    if profile is not None:
        profile.save(folder)
    return folder


def portable_name(name: str) -> str:
    """The name in the file, which both generations read, of a weight of the model in either generation."""
    for prefix, replacement in _RENAMED:
        if name.startswith(prefix):
            return replacement + name[len(prefix) :]
    raise ValueError(f"weight {name!r} is not part of LLaVA-OneVision; merge adapters and unwrap the model first")


def portable_weights(
    state: Mapping[str, torch.Tensor], *, tied: bool, dtype: torch.dtype | None = None
) -> dict[str, torch.Tensor]:
    """Weights by the names both generations read, on the CPU; a tied lm_head is checked and left out."""
    if tied and "lm_head.weight" in state:
        embedding = state["model.language_model.embed_tokens.weight"]
        if not torch.equal(state["lm_head.weight"], embedding):
            raise ValueError("text_config ties the embeddings but lm_head.weight differs from them; tie or untie first")
    return {
        portable_name(name): tensor.detach().to("cpu", dtype if tensor.is_floating_point() else None).contiguous()
        for name, tensor in state.items()
        if not (tied and name == "lm_head.weight")
    }


def portable_config(config: Any, dtype: torch.dtype) -> dict[str, Any]:
    """``config.json`` with rope_theta where 4.x and where 5.x look for it, and sliding windows off."""
    content = json.loads(config.to_json_string(use_diff=True))
    for key in ("_name_or_path", "torch_dtype", "auto_map"):
        content.pop(key, None)
    content |= {
        "architectures": ["LlavaOnevisionForConditionalGeneration"],
        "dtype": str(dtype).removeprefix("torch."),
        "transformers_version": LAYOUT,
    }
    text = content["text_config"]
    for part in (text, content["vision_config"]):
        part.pop("dtype", None)
    rope = text.pop("rope_scaling", None) or text.get("rope_parameters") or {}
    rope = {"rope_theta": rope_theta(config.text_config), "rope_type": "default", **rope}
    text |= {"rope_theta": rope["rope_theta"], "rope_parameters": rope}
    if rope["rope_type"] != "default":
        text["rope_scaling"] = {key: value for key, value in rope.items() if key != "rope_theta"}
    layers = config.text_config.num_hidden_layers
    text |= {"sliding_window": None, "use_sliding_window": False, "layer_types": ["full_attention"] * layers}
    # 4.57 decides by the outer value, 5.x by either: both must say what the text model does.
    content["tie_word_embeddings"] = text["tie_word_embeddings"] = bool(config.text_config.tie_word_embeddings)
    content["text_config"] = dict(sorted(text.items()))
    return dict(sorted(content.items()))


def rope_theta(text_config: Any) -> float | None:
    """The rotary base of a text config, an object of either generation or parsed JSON; None where it has none."""
    content = text_config if isinstance(text_config, Mapping) else vars(text_config)
    nested = content.get("rope_parameters") or {}
    theta = nested.get("rope_theta", content.get("rope_theta"))
    return None if theta is None else float(theta)


def tokenizer_files(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """``tokenizer.json`` and a ``tokenizer_config.json`` with the one class that both generations have."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise ValueError(f"{type(tokenizer).__name__} has no fast backend to save; load it with AutoTokenizer")
    named = {name: str(token) for name, token in tokenizer.special_tokens_map.items() if isinstance(token, str)}
    special = [token for token in tokenizer.all_special_tokens if token not in named.values()]
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "processor_class": "LlavaOnevisionProcessor",
        "model_max_length": min(int(tokenizer.model_max_length), 2**31 - 1),
        "padding_side": "left",
        "model_input_names": ["input_ids", "attention_mask"],  # else 4.x adds token_type_ids, which generate refuses
        "clean_up_tokenization_spaces": False,
        "additional_special_tokens": special,
        **named,
    }
    return {"tokenizer.json": json.loads(backend.to_str()), "tokenizer_config.json": settings}


def processor_files(config: Mapping[str, Any], preprocessor: Mapping[str, Any]) -> dict[str, Any]:
    """The three processor configs that AutoProcessor wants, for a parsed portable ``config.json``."""
    vision = config["vision_config"]
    outer = ("auto_map", "vision_aspect_ratio", "num_image_tokens")  # of the processor around it, or refused
    image = {key: value for key, value in preprocessor.items() if key not in outer}
    image |= {"image_processor_type": "LlavaOnevisionImageProcessor", "processor_class": "LlavaOnevisionProcessor"}
    flags = ("do_convert_rgb", "do_normalize", "do_rescale", "do_resize")
    shared = (*flags, "image_mean", "image_std", "resample", "rescale_factor", "size")
    video = {key: image[key] for key in shared if key in image}
    video |= {"video_processor_type": "LlavaOnevisionVideoProcessor", "processor_class": "LlavaOnevisionProcessor"}
    processor = {
        "processor_class": "LlavaOnevisionProcessor",
        "image_token": "<image>",
        "video_token": "<video>",
        "num_image_tokens": (vision["image_size"] // vision["patch_size"]) ** 2,
        "vision_feature_select_strategy": config["vision_feature_select_strategy"],
        "vision_aspect_ratio": config["vision_aspect_ratio"],
    }
    return {
        "preprocessor_config.json": image,
        "video_preprocessor_config.json": video,
        "processor_config.json": processor,
    }


def _generation_config(model: Any, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    known = model.generation_config
    content: dict[str, Any] = {"do_sample": False}
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        for owner in (known, model.config.text_config, tokenizer):
            value = getattr(owner, name, None)
            if value is not None:
                content[name] = value
                break
    return content


def _write_weights(folder: Path, weights: dict[str, torch.Tensor]) -> None:
    shards = split_torch_state_dict_into_shards(weights, max_shard_size=SHARD_SIZE)
    for name, keys in shards.filename_to_tensors.items():
        save_file({key: weights[key] for key in keys}, folder / name, metadata={"format": "pt"})
        (folder / name).chmod(0o644)  # safetensors makes files that only their owner may read, also once installed
    if shards.is_sharded:
        index = {"metadata": shards.metadata, "weight_map": shards.tensor_to_filename}
        _write_json(folder / "model.safetensors.index.json", index)


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
