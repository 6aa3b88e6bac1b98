"""Damaged checkpoints: the packaged model's folder with one thing wrong, opened and asked for the score of an image."""

from __future__ import annotations

import json
import re
import shutil
from functools import cache
from pathlib import Path
from typing import Any

from safetensors import safe_open

from tests.conftest import NANO

from .byte_damage import byte_damages, file_damages
from .case import VALUES, Case, Damage, Family, chosen, rng_of
from .hostile import hostile_damages
from .json_damage import deletions, text_damages, value_damages
from .scoring import prepare, scored
from .tensor_damage import header_damages, tensor_damages

NUMBER = {"short": 140, "long": 3800}
__all__ = ["ALLOWED", "NUMBER", "case", "healthy", "prepare", "read"]
ALLOWED = ("WeightsError",)

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
JSONS = (
    "config.json",
    "qsit.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "generation_config.json",
    "golden.json",
    "chat_template.json",
    "video_preprocessor_config.json",
)
FILES = (*JSONS, "chat_template.jinja", WEIGHTS, "golden-astronaut.png", "golden-astronaut-blurred.png")


def case(number: int, seed: int) -> Case:
    damages = chosen(families(), number, seed)
    golden = rng_of(number, seed).random() < 0.5  # without it, nothing but the values themselves can give damage away
    label = "; ".join(damage.label for damage in damages) + ("" if golden else " (no golden.json)")
    return Case(label, lambda folder: _run(folder, damages, golden, number, seed), ALLOWED)


def _run(folder: Path, damages: list[Damage], golden: bool, number: int, seed: int) -> str:
    checkpoint = healthy(folder, golden)
    rng = rng_of(number, seed)
    for damage in damages:
        damage.apply(checkpoint, rng)
    return scored(folder, checkpoint)


def healthy(folder: Path, golden: bool = False) -> Path:
    """A copy of the packaged model in a folder, with or without its golden scores."""
    checkpoint = folder / "checkpoint"
    checkpoint.mkdir()
    for name in FILES:
        if golden or not name.startswith("golden"):
            shutil.copyfile(NANO / name, checkpoint / name)
    return checkpoint


@cache
def families() -> dict[str, Family]:
    documents = {name: read(name) for name in JSONS}
    everything = {**documents, **_further(documents)}
    return {
        VALUES: Family(10, value_damages(everything)),
        "left out": Family(3, deletions(documents)),
        "broken text": Family(4, text_damages(everything)),
        "hostile": Family(6, hostile_damages(read)),
        "tensors": Family(6, tensor_damages(WEIGHTS, groups())),
        "header": Family(2, header_damages(WEIGHTS)),
        "bytes": Family(3, byte_damages(FILES)),
        "files": Family(3, file_damages(FILES)),
    }


def read(name: str) -> Any:
    return json.loads((NANO / name).read_text(encoding="utf-8"))


def _further(documents: dict[str, Any]) -> dict[str, Any]:
    """Healthy files that other checkpoints have and the packaged one lacks."""
    return {
        INDEX: {"metadata": {"total_size": 9_207_936}, "weight_map": {name: WEIGHTS for name in tensor_names()}},
        "special_tokens_map.json": {
            "eos_token": "<|im_end|>",
            "pad_token": {"content": "<|endoftext|>", "lstrip": False},
        },
        "added_tokens.json": {"<image>": 3, "<video>": 4},
        "config.json": documents["config.json"] | {"image_token_id": 3, "bos_token_id": None, "id2label": {"0": "a"}},
        "processor_config.json": documents["processor_config.json"]
        | {"image_processor": documents["preprocessor_config.json"], "chat_template": "<image>"},
        "generation_config.json": documents["generation_config.json"]
        | {
            "temperature": 1.0,
            "top_k": 50,
            "max_length": 20,
            "cache_implementation": "dynamic",
            "eos_token_id": [2, 0],
        },
    }


@cache
def tensor_names() -> list[str]:
    with safe_open(NANO / WEIGHTS, "pt") as file:
        return sorted(file.keys())


@cache
def groups() -> dict[str, list[str]]:
    """Name of each group of tensors -> its tensors. The head is the text embedding, which the packaged model ties."""
    patterns = {
        "vision embeddings": r"vision_tower.*embeddings",
        "vision layers": r"vision_tower.*layers.*(attn|mlp)",
        "vision norms": r"vision_tower.*norm",
        "projector": r"multi_modal_projector",
        "image_newline": r"image_newline",
        "text embedding and head": r".*embed_tokens",
        "text attention": r"language_model.*attn",
        "text layers": r"language_model.*mlp",
        "text norms": r"language_model.*norm",
    }
    return {group: [n for n in tensor_names() if re.match(pattern, n)] for group, pattern in patterns.items()}
