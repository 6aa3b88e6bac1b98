"""Checks on a checkpoint that is being opened. Each raises WeightsError where scores would be silently wrong."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import transformers
from safetensors import SafetensorError, safe_open

from qsit_plugin.weights.errors import WeightsError, short
from qsit_plugin.weights.folder import weight_files

from .saving import rope_theta

if TYPE_CHECKING:
    from transformers import LlavaOnevisionConfig, LlavaOnevisionForConditionalGeneration, PreTrainedTokenizerBase

_HEADS = ("language_model.lm_head.weight", "lm_head.weight")
_EMBEDDINGS = (
    "language_model.model.embed_tokens.weight",
    "model.language_model.embed_tokens.weight",
    "language_model.embed_tokens.weight",
)

RESAVE = "re-save it where it was written with qsit_plugin.checkpoint.save_portable, or use that transformers version"
"""The cure for a checkpoint that crossed from one generation of transformers to the other."""


def check_rope_agrees(content: dict[str, Any], folder: Path) -> None:
    """rope_theta (read by 4.x) and rope_parameters.rope_theta (read by 5.x), where both are written, must be equal."""
    text = content.get("text_config") or {}
    nested = (text.get("rope_parameters") or {}).get("rope_theta")
    flat = text.get("rope_theta")
    if nested is not None and flat is not None and float(nested) != float(flat):
        raise WeightsError(
            f"{folder / 'config.json'} has two rope_theta: {flat} in text_config, {nested} in its rope_parameters, so "
            "transformers 4 and 5 would give different scores; delete the one that the model was not trained with"
        )


def check_rope(content: dict[str, Any], model: LlavaOnevisionForConditionalGeneration) -> None:
    """The rotary positions that the model computes with must be those of config.json: their type and their base.

    4.x reads ``rope_parameters`` of 5.x as if there were none: it takes 10000, and no scaling.
    """
    text = content.get("text_config") or {}
    rotary = model.model.language_model.rotary_emb
    kind, computed = _rope_type(text), getattr(rotary, "rope_type", "default")
    if kind != computed:
        raise WeightsError(
            f"config.json says rotary positions of type {kind!r}, but transformers {transformers.__version__} computes "
            f"with {computed!r}: positions would be wrong. The checkpoint was saved by another generation; {RESAVE}"
        )
    expected = rope_theta(text)
    if expected is None or kind != "default":
        return
    used: torch.Tensor = rotary.inv_freq.detach().cpu().double()
    exponents = torch.arange(len(used), dtype=torch.float64) / len(used)
    if not torch.allclose(used, expected**-exponents, rtol=1e-4, atol=0):
        actual = float(used[-1] ** (-1 / exponents[-1])) if len(used) > 1 else float("nan")
        raise WeightsError(
            f"config.json says rope_theta {expected:g}, but transformers {transformers.__version__} computes with "
            f"{actual:g}: positions would be wrong. The checkpoint was saved by another generation; {RESAVE}"
        )


def check_special_tokens(tokenizer: PreTrainedTokenizerBase, config: LlavaOnevisionConfig) -> None:
    """``<image>`` must be the token at which the model puts image features."""
    expected = config.image_token_index
    found = tokenizer.convert_tokens_to_ids("<image>")
    if found != expected:
        raise WeightsError(
            f"config.json puts image features at token {short(expected)}, but the tokenizer's <image> is {found}: "
            "tokenizer and config belong to different checkpoints; copy both from the same one"
        )


def check_head(folder: Path, config: LlavaOnevisionConfig) -> None:
    """A tied checkpoint may carry lm_head.weight only as a copy of the embedding; 4.x ignores another, 5.x uses it."""
    if not config.text_config.tie_word_embeddings:
        return
    head = _read_tensor(folder, _HEADS)
    embedding = _read_tensor(folder, _EMBEDDINGS)
    if head is not None and embedding is not None and not torch.equal(head.to(embedding.dtype), embedding):
        raise WeightsError(
            f"{folder} ties its embeddings (text_config.tie_word_embeddings) yet carries a different lm_head.weight, "
            "which transformers 4 ignores and 5 uses: scores would differ. Delete lm_head.weight from the file, as "
            "the published models are read, or set tie_word_embeddings to false if that head was trained"
        )


def check_finite(model: LlavaOnevisionForConditionalGeneration, folder: Path) -> None:
    """No weight may be NaN or infinite: a flipped bit, or half a write. Integers of quantized layers are left out."""
    floats = [(name, weight) for name, weight in model.named_parameters() if weight.is_floating_point()]
    sums = torch.stack([weight.sum().float() for _, weight in floats])  # one answer from the device for all
    doubtful = [pair for pair, total in zip(floats, sums.tolist(), strict=True) if not math.isfinite(total)]
    broken = [name for name, weight in doubtful if not weight.isfinite().all()]  # the sum alone may leave float16
    if broken:
        half = model.dtype == torch.float16
        raise WeightsError(
            f"the weights of {folder} are damaged: {len(broken)} of them hold numbers that are not finite "
            f"{'in float16 ' if half else ''}(first: {broken[0]}); download or copy the checkpoint again"
            f"{', or load it in bfloat16, which has a larger range' if half else ''}"
        )


def check_tied(model: LlavaOnevisionForConditionalGeneration) -> None:
    """After loading, a tied head must be the embedding: transformers 5.0.0 leaves it random."""
    if not torch.equal(model.lm_head.weight, model.model.language_model.embed_tokens.weight):
        raise WeightsError(
            f"transformers {transformers.__version__} did not tie lm_head to the embeddings as text_config says; "
            "install another version of transformers"
        )


def _read_tensor(folder: Path, names: Sequence[str]) -> torch.Tensor | None:
    for path in weight_files(folder):
        try:
            with safe_open(path, "pt") as file:
                for name in names:
                    if name in file.keys():  # noqa: SIM118 (a safetensors file is not a mapping)
                        return file.get_tensor(name)
        except (SafetensorError, OSError) as error:
            raise WeightsError(f"{path} is broken ({error}); download or copy it again") from None
    return None


def _rope_type(text: dict[str, Any]) -> str:
    settings = text.get("rope_scaling") or text.get("rope_parameters") or {}
    return str(settings.get("rope_type") or settings.get("type") or "default")
