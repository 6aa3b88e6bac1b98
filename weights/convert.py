"""Converts a LLaVA-NeXT style Q-SiT checkpoint (``LlavaQwenForCausalLM``) to the Hugging Face layout.

Q-SiT is trained with LLaVA-NeXT, which writes one flat config with ``mm_*`` keys and names the vision tower inside the
language model. The weights are the same numbers under other names; nothing is computed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qsit_plugin.weights.config_limits import MOST_POINTS, check_config, is_whole, refuse_quantized
from qsit_plugin.weights.errors import WeightsError, first_line, refusing, short
from qsit_plugin.weights.folder import check_folder, weight_files
from qsit_plugin.weights.headers import stored_tensors
from qsit_plugin.weights.json_file import check_json_files, read_json

TOWERS: dict[str, dict[str, Any]] = {
    "google/siglip-so400m-patch14-384": {
        "hidden_size": 1152,
        "intermediate_size": 4304,
        "num_hidden_layers": 26,
        "num_attention_heads": 16,
        "image_size": 384,
        "patch_size": 14,
    }
}
"""SigLIP towers by their Hub id, without their last layer, which LLaVA-NeXT drops (so400m has 27)."""

SPECIAL_TOKENS = ("<image>", "<video>")

_NAMES = (  # what a name starts with in LLaVA-NeXT, and in transformers' model; the first match wins
    ("model.vision_tower.vision_tower.vision_model.", "model.vision_tower.vision_model."),
    ("model.mm_projector.0.", "model.multi_modal_projector.linear_1."),
    ("model.mm_projector.2.", "model.multi_modal_projector.linear_2."),
    ("model.image_newline", "model.image_newline"),
    ("model.embed_tokens.", "model.language_model.embed_tokens."),
    ("model.layers.", "model.language_model.layers."),
    ("model.norm.", "model.language_model.norm."),
    ("lm_head.", "lm_head."),
)
_TEXT_KEYS = (
    "attention_dropout",
    "bos_token_id",
    "eos_token_id",
    "hidden_act",
    "hidden_size",
    "initializer_range",
    "intermediate_size",
    "max_position_embeddings",
    "max_window_layers",
    "num_attention_heads",
    "num_hidden_layers",
    "num_key_value_heads",
    "pad_token_id",
    "rms_norm_eps",
    "rope_scaling",
    "rope_theta",
    "tie_word_embeddings",
    "use_cache",
    "vocab_size",
)
_REQUIRED = {  # settings under which transformers' LLaVA-OneVision computes the same
    "mm_projector_type": ("mlp2x_gelu",),
    "mm_patch_merge_type": ("spatial_unpad",),
    "mm_use_im_start_end": (False, None),
    "mm_vision_select_feature": ("patch", None),
    "mm_resampler_type": (None,),
}


def convert(
    source: str | Path, target: str | Path, *, vision: Mapping[str, Any] | None = None, profile: Any = None
) -> Path:
    """Write the Hugging Face layout of a LLaVA-NeXT checkpoint folder into ``target`` and return it.

    Args:
        source: folder with ``config.json``, safetensors and the tokenizer.
        target: a new or an empty folder.
        vision: SiglipVisionConfig settings of a tower that is not in ``TOWERS``, last layer not counted.
        profile: a ScoreProfile to store as ``qsit.json``; without one the official profile is used when scoring.

    Raises:
        WeightsError: a setting or a weight that has no counterpart, naming it.
    """
    from qsit_plugin.checkpoint import quiet_transformers
    from qsit_plugin.checkpoint.saving import CHAT_TEMPLATE, save_portable

    folder, target = check_folder(source), Path(target)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise WeightsError(f"{target} exists and is not an empty folder; give a new one, nothing is overwritten")
    check_json_files(folder)
    content = read_json(folder / "config.json")
    refuse_quantized(content, folder / "config.json")
    _check_counts(content)
    with quiet_transformers(), refusing(f"{folder} cannot be converted", OSError):
        tokenizer = _tokenizer(folder)
        config = hf_config(content, {token: tokenizer.convert_tokens_to_ids(token) for token in SPECIAL_TOKENS}, vision)
        check_config(config.to_dict(), folder / "config.json", stored_tensors(folder))
        model = _model(folder, config)
        preprocessor = siglip_preprocessor(config)
        return save_portable(
            model, tokenizer, target, profile=profile, preprocessor=preprocessor, chat_template=CHAT_TEMPLATE
        )


def _check_counts(content: Mapping[str, Any]) -> None:
    """What transformers makes lists of as soon as it sees a config, the tokenizer's included."""
    for key, most in (("num_hidden_layers", 1000), ("vocab_size", 10_000_000)):
        if not is_whole(content.get(key, 1), 1, most):
            raise WeightsError(f"config.json has {key}={short(content[key])}; it must be a whole number below {most:,}")


def hf_name(name: str) -> str:
    """The name in transformers' model (4.x spelling of the tower) of a LLaVA-NeXT weight."""
    for prefix, replacement in _NAMES:
        if name.startswith(prefix):
            return replacement + name[len(prefix) :]
    raise WeightsError(f"weight {short(name)} has no place in LLaVA-OneVision; is this a LLaVA-NeXT Qwen checkpoint?")


def hf_config(content: Mapping[str, Any], tokens: Mapping[str, int], vision: Mapping[str, Any] | None = None) -> Any:
    """LlavaOnevisionConfig of a parsed LLaVA-NeXT ``config.json``; ``tokens`` are the ids of <image> and <video>."""
    from transformers import LlavaOnevisionConfig, Qwen2Config, SiglipVisionConfig

    if "llava" not in str(content.get("model_type")) or content.get("model_type") == "llava_onevision":
        kind = short(content.get("model_type"))
        raise WeightsError(f"model_type {kind} is not LLaVA-NeXT's; there is nothing to convert")
    for key, allowed in _REQUIRED.items():
        if content.get(key) not in allowed:
            raise WeightsError(f"config.json has {key}={short(content.get(key))}; only {allowed[0]!r} can be converted")
    aspect = content.get("image_aspect_ratio")
    if not isinstance(aspect, str) or not re.fullmatch(r"anyres_max_\d+", aspect):
        raise WeightsError(f"config.json has image_aspect_ratio={short(aspect)}; only anyres_max_N can be converted")
    tower = vision or TOWERS.get(str(content.get("mm_vision_tower")))
    if tower is None:
        raise WeightsError(
            f"mm_vision_tower {short(content.get('mm_vision_tower'))} is unknown (known: {', '.join(TOWERS)}); pass "
            "its SigLIP settings as vision="
        )
    text = {key: content[key] for key in _TEXT_KEYS if content.get(key) is not None}
    text["vocab_size"] = max(int(content["vocab_size"]), 1 + max(tokens.values()))
    text["tie_word_embeddings"] = bool(content.get("tie_word_embeddings", False))
    return LlavaOnevisionConfig(
        vision_config=SiglipVisionConfig(**tower, vision_use_head=False),
        text_config=Qwen2Config(**text, use_sliding_window=False, sliding_window=None),
        image_token_index=tokens["<image>"],
        video_token_index=tokens["<video>"],
        image_grid_pinpoints=grid_points(content.get("image_grid_pinpoints"), int(tower["image_size"])),
        vision_aspect_ratio=aspect,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        tie_word_embeddings=text["tie_word_embeddings"],
    )


def grid_points(value: Any, tile: int) -> list[list[int]]:
    """(height, width) canvases in pixels from LLaVA-NeXT's list of (width, height) or its ``"(1x1),...,(6x6)"``.

    A set that is the same with sides exchanged keeps its order, because the order decides between equally good
    canvases and the published conversions left it so.
    """
    if isinstance(value, str):
        found = [(int(a), int(b)) for a, b in re.findall(r"\((\d+)\s*x\s*(\d+)\)", value)]
        if len(found) < 2:
            raise WeightsError(f"image_grid_pinpoints {short(value)} is not of the form '(1x1),...,(6x6)'")
        (a, b), (c, d) = found[0], found[-1]
        if max(c - a, 0) * max(d - b, 0) > MOST_POINTS:
            raise WeightsError(f"image_grid_pinpoints {short(value)} means more than {MOST_POINTS} grid points")
        points = [[tile * i, tile * j] for i in range(a, c + 1) for j in range(b, d + 1)]
    elif isinstance(value, list) and value and all(isinstance(p, (list, tuple)) and len(p) == 2 for p in value):
        points = [[int(width), int(height)] for width, height in value]
    else:
        raise WeightsError(f"image_grid_pinpoints {short(value)} is neither a list of pairs nor '(1x1),...,(6x6)'")
    swapped = [[second, first] for first, second in points]
    return points if sorted(points) == sorted(swapped) else swapped


def siglip_preprocessor(config: Any) -> dict[str, Any]:
    """``preprocessor_config.json`` of LLaVA-NeXT's SigLIP image processor."""
    tile = config.vision_config.image_size
    return {
        **dict.fromkeys(("do_convert_rgb", "do_normalize", "do_pad", "do_rescale", "do_resize"), True),
        "image_grid_pinpoints": [list(point) for point in config.image_grid_pinpoints],
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "resample": 3,
        "rescale_factor": 1 / 255,
        "size": {"height": tile, "width": tile},
    }


def _tokenizer(source: Path) -> Any:
    from transformers import AddedToken, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(str(source), local_files_only=True, trust_remote_code=False)
    except Exception as error:  # what a wrong file raises differs by tokenizer class and version
        raise WeightsError(
            f"the tokenizer of {source} does not load ({first_line(error)}); copy Qwen2's tokenizer files into it"
        ) from error
    tokenizer.add_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS])
    return tokenizer


def _model(source: Path, config: Any) -> Any:
    """The model with the weights of ``source``, read through memory maps: 16 GB are never copied in memory."""
    import torch
    from transformers import LlavaOnevisionForConditionalGeneration

    with torch.device("meta"):
        model = LlavaOnevisionForConditionalGeneration(config).eval()
    expected = model.state_dict()
    wrapped = any(name.startswith("model.vision_tower.vision_model.") for name in expected)
    state = {}
    for name, tensor in _weights(source, config).items():
        key = name if wrapped else name.replace("model.vision_tower.vision_model.", "model.vision_tower.")
        is_token_table = key in ("lm_head.weight", "model.language_model.embed_tokens.weight")
        state[key] = _grown(tensor, config.text_config.vocab_size) if is_token_table else tensor
    embedding = state.get("model.language_model.embed_tokens.weight")
    if config.text_config.tie_word_embeddings and embedding is not None:
        head = state.setdefault("lm_head.weight", embedding)
        if not torch.equal(head.to(embedding.dtype), embedding):
            raise WeightsError(
                f"{source} says tie_word_embeddings but its lm_head differs from the embedding; set it to false in "
                "config.json if that head was trained, else delete lm_head.weight"
            )
        state["lm_head.weight"] = embedding
    faults = [f"{name} is missing" for name in sorted(expected.keys() - state.keys())]
    faults += [f"{name} is not in the model" for name in sorted(state.keys() - expected.keys())]
    faults += [
        f"{name} has shape {tuple(state[name].shape)}, not {tuple(expected[name].shape)}"
        for name in sorted(expected.keys() & state.keys())
        if state[name].shape != expected[name].shape
    ]
    if faults:
        raise WeightsError(f"{source}: {len(faults)} weights do not fit its config; first: {faults[0]}")
    model.load_state_dict(state, assign=True)
    return model


def _weights(source: Path, config: Any) -> dict[str, Any]:
    """Every weight by its name in the model, without the tower's parts that LLaVA-NeXT does not use either."""
    from safetensors import SafetensorError, safe_open

    tower = "model.vision_tower.vision_model."
    unused = (f"{tower}head.", f"{tower}encoder.layers.{config.vision_config.num_hidden_layers}.")
    found = {}
    for path in weight_files(source):
        try:
            with safe_open(path, "pt") as file:
                for name in file.keys():  # noqa: SIM118 (a safetensors file is not a mapping)
                    if not name.endswith("rotary_emb.inv_freq") and not hf_name(name).startswith(unused):
                        found[hf_name(name)] = file.get_tensor(name)
        except (SafetensorError, OSError) as error:
            raise WeightsError(f"{path} is broken ({error}); copy it again") from None
    return found


def _grown(weight: Any, rows: int) -> Any:
    """A token table with mean rows appended for <image> and <video>, where it ends before them."""
    import torch

    missing = rows - len(weight)
    if missing <= 0:
        return weight
    mean = weight.float().mean(dim=0, keepdim=True).to(weight.dtype)
    return torch.cat([weight, mean.expand(missing, -1)])
