"""What inference.py feeds every contender: seeded photos as JPEG files, and checkpoint folders of the shapes asked for.

The weights of a shape are random, N(0, 1/fan_in), drawn on the device from the seed and the name of each parameter, so
that one layer more or less changes no other. qsit-nano is taken as it ships.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SIZES = ((512, 512), (1024, 768), (1024, 1024), (1920, 1080), (4032, 3024))
MIXED = ((512, 384), (640, 480), (384, 512), (1024, 768), (500, 375), (333, 500), (800, 600), (768, 512))
"""One batch repeats these eight sizes twice."""

SHAPES: dict[str, dict[str, Any]] = {
    # tile 384, patch 14 and grids up to 6 x 6 as published: token counts are the official ones, widths are not
    "small": {"vision": (256, 1024, 2, 4), "text": (256, 1024, 2, 4, 2), "vocabulary": 8192, "tied": True},
    # as deep as the official checkpoints, and so narrow that two cores can run it: layers cost what they cost there
    "deep": {"vision": (128, 512, 27, 4), "text": (128, 512, 24, 4, 2), "vocabulary": 8192, "tied": True},
    "mini": {"vision": (1152, 4304, 26, 16), "text": (896, 4864, 24, 14, 2), "vocabulary": 152000, "tied": True},
    "7b": {"vision": (1152, 4304, 26, 16), "text": (3584, 18944, 28, 28, 4), "vocabulary": 152128, "tied": False},
}
"""vision: width, inner width, layers, heads; text: the same and the number of key-value heads."""


def photo(width: int, height: int, seed: int) -> Image.Image:
    """Something like a photo: octaves of smooth colour with falling strength, some straight edges, a little noise."""
    rng = np.random.default_rng([width, height, seed])
    total = np.zeros((height, width, 3), dtype=np.float32)
    for octave in range(1, 8):
        cells = rng.integers(0, 256, (2**octave, 2**octave, 3), dtype=np.uint8)
        smooth = Image.fromarray(cells).resize((width, height), Image.Resampling.BICUBIC)
        total += (np.asarray(smooth, dtype=np.float32) - 128.0) * 0.7**octave
    for _ in range(12):
        left, top = int(rng.integers(0, width)), int(rng.integers(0, height))
        total[top : top + height // 6, left : left + width // 5] += rng.normal(0, 40, 3).astype(np.float32)
    total += rng.standard_normal((height, width, 1), dtype=np.float32) * 4.0
    return Image.fromarray((total + 128.0).clip(0, 255).astype(np.uint8))


def photo_file(folder: Path, width: int, height: int, seed: int) -> str:
    """A JPEG of quality 92, made once."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{width}x{height}-{seed}.jpg"
    if not file.is_file():
        photo(width, height, seed).save(file, quality=92)
    return str(file)


def checkpoint(shape: str, folder: Path, *, seed: int, device: str) -> Path:
    """The folder of a shape's checkpoint, written once; nano's is that of the package."""
    if shape == "nano":
        from qsit_plugin.weights import resolve

        return resolve("qsit-nano")
    target = folder / f"{shape}-{seed}"
    if not (target / "model.safetensors").is_file() and not (target / "model.safetensors.index.json").is_file():
        _write(shape, target, seed, device)
    return target


def _write(shape: str, target: Path, seed: int, device: str) -> None:
    import torch
    from transformers import (
        LlavaOnevisionConfig,
        LlavaOnevisionForConditionalGeneration,
        Qwen2Config,
        SiglipVisionConfig,
    )

    from qsit_plugin.checkpoint.saving import CHAT_TEMPLATE, save_portable
    from tests.tiny import SPECIAL_TOKENS, preprocessor_for, profile_of, tiny_tokenizer

    plan, words = SHAPES[shape], tiny_tokenizer()
    ids = {token: words.convert_tokens_to_ids(token) for token in SPECIAL_TOKENS}
    width, inner, layers, heads, kv_heads = plan["text"]
    text = Qwen2Config(
        hidden_size=width,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        vocab_size=plan["vocabulary"],
        max_position_embeddings=32768,
        rope_theta=1000000.0,
        tie_word_embeddings=plan["tied"],
        bos_token_id=ids["<|endoftext|>"],
        eos_token_id=ids["<|im_end|>"],
        pad_token_id=ids["<|endoftext|>"],
    )
    width, inner, layers, heads = plan["vision"]
    vision = SiglipVisionConfig(
        hidden_size=width,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        image_size=384,
        patch_size=14,
        vision_use_head=False,
    )
    config = LlavaOnevisionConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=ids["<image>"],
        video_token_index=ids["<video>"],
        image_grid_pinpoints=[[384 * rows, 384 * columns] for rows in range(1, 7) for columns in range(1, 7)],
        tie_word_embeddings=plan["tied"],
    )
    dtype = torch.float32 if shape in ("small", "deep") else torch.float16
    with torch.device("meta"):  # nothing is drawn twice, and 7B is never in float32
        model = LlavaOnevisionForConditionalGeneration(config)
    model = model.to(dtype).to_empty(device=device).eval()
    if plan["tied"]:
        model.tie_weights()
    fill(model, seed)
    save_portable(
        model,
        words,
        target,
        profile=profile_of(words),
        preprocessor=preprocessor_for(config),
        chat_template=CHAT_TEMPLATE,
    )


def fill(model: Any, seed: int) -> None:
    """Give every parameter its random values, on the device where it lies."""
    import torch

    with torch.no_grad():
        for name, weight in model.named_parameters():
            digest = hashlib.sha256(f"{seed} {name}".encode()).digest()
            generator = torch.Generator(weight.device).manual_seed(int.from_bytes(digest[:7], "big"))
            scale = weight[0].numel() ** -0.5 if weight.dim() > 1 else 0.1
            if "embed_tokens" in name or name.startswith("lm_head"):
                scale = 0.5 if weight.shape[1] < 512 else 0.05  # so that the level logits spread by a few units
            weight.normal_(0.0, scale, generator=generator)
            if "norm" in name and name.endswith("weight"):
                weight.add_(1.0)
