"""Builds tiny random LLaVA-OneVision checkpoints: real folders, real architecture, a few hundred thousand weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    PreTrainedTokenizerFast,
    Qwen2Config,
    SiglipVisionConfig,
)

from qsit_plugin.checkpoint.saving import CHAT_TEMPLATE, save_portable
from qsit_plugin.protocol import TRAINING_CONSISTENT, ScoreProfile

QWEN_VOCABULARY = Path(__file__).resolve().parents[2] / "shared" / "data" / "tokenizer"
"""Qwen2's vocab.json and merges.txt; not part of the package, so tests that need it skip where it is absent."""

SPECIAL_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<image>", "<video>"]
LEVEL_WORDS = TRAINING_CONSISTENT.level_words

_SENTENCES = [
    "Assume you are an image quality evaluator. How would you rate the quality of this image?",
    *(f"The quality of the image is{word}. It is{word}, not{word}." for word in LEVEL_WORDS),
    "Which distortion is most visible in this image?\nA. blur\nB. noise\nC. compression artifacts",
    "user\n assistant\n Describe and evaluate the quality of the image. The image is sharp, noisy and low in contrast.",
]
_QWEN_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def tiny_checkpoint(
    folder: str | Path,
    *,
    seed: int = 0,
    tile: int | None = None,
    official: bool = True,
    tokenizer: str = "char",
    tie: bool = True,
    hidden: int = 32,
) -> Path:
    """Write a random checkpoint through save_portable and return its folder.

    Args:
        tile: pixels; by default 384 for official settings and 128 otherwise.
        official: patch 14 and 6 x 6 grid points, as published; else qsit-nano's patch 16.
        tokenizer: ``"char"`` is a small byte-level BPE made here, with a ``qsit.json`` whose level words are single
            tokens; ``"qwen"`` is Qwen2's vocabulary with the official profile (no ``qsit.json``).
        tie: whether lm_head is the embedding, as in Q-SiT-mini; False as in the 7B model.
    """
    words = tiny_tokenizer() if tokenizer == "char" else qwen_tokenizer()
    model = tiny_model(words, seed=seed, tile=tile, official=official, tie=tie, hidden=hidden)
    return save_portable(
        model,
        words,
        folder,
        profile=profile_of(words) if tokenizer == "char" else None,
        preprocessor=preprocessor_for(model.config),
        chat_template=CHAT_TEMPLATE,
    )


def tiny_model(
    tokenizer: PreTrainedTokenizerFast,
    *,
    seed: int = 0,
    tile: int | None = None,
    official: bool = True,
    tie: bool = True,
    hidden: int = 32,
) -> LlavaOnevisionForConditionalGeneration:
    """The random model alone, in evaluation mode, float32."""
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in SPECIAL_TOKENS}
    tile = tile or (384 if official else 128)
    text = Qwen2Config(
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=len(tokenizer),
        max_position_embeddings=32768,
        rope_theta=1000000.0,
        tie_word_embeddings=tie,
        bos_token_id=ids["<|endoftext|>"],
        eos_token_id=ids["<|im_end|>"],
        pad_token_id=ids["<|endoftext|>"],
    )
    vision = SiglipVisionConfig(
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=tile,
        patch_size=14 if official else 16,
        vision_use_head=False,
    )
    config = LlavaOnevisionConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=ids["<image>"],
        video_token_index=ids["<video>"],
        image_grid_pinpoints=[[tile * rows, tile * columns] for rows in range(1, 7) for columns in range(1, 7)],
        tie_word_embeddings=tie,
    )
    model = LlavaOnevisionForConditionalGeneration(config).eval()
    _spread(model, torch.Generator().manual_seed(seed))
    if tie:
        model.tie_weights()
    return model


def _spread(model: torch.nn.Module, generator: torch.Generator) -> None:
    """Weights N(0, 1/fan_in), so that logits depend on the image; the default N(0, .02) makes them nearly constant."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            noise = torch.randn(weight.shape, generator=generator)
            if "embed" in name and "patch_embedding" not in name or name.startswith("lm_head"):
                weight.copy_(0.5 * noise)
            elif "norm" in name and name.endswith("weight"):
                weight.copy_(1 + 0.1 * noise)
            elif weight.dim() > 1:
                weight.copy_(noise / weight[0].numel() ** 0.5)
            else:
                weight.copy_(0.1 * noise)


def preprocessor_for(config: Any) -> dict[str, Any]:
    """``preprocessor_config.json`` as the official checkpoints have it, for a model config."""
    tile = config.vision_config.image_size
    return {
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_pad": True,
        "do_rescale": True,
        "do_resize": True,
        "image_grid_pinpoints": [list(point) for point in config.image_grid_pinpoints],
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "resample": 3,
        "rescale_factor": 1 / 255,
        "size": {"height": tile, "width": tile},
    }


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE of about 500 tokens in which the five level words (with leading space) are one token each."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = _qwen_split()
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=600, initial_alphabet=alphabet, show_progress=False)
    backend.train_from_iterator(_SENTENCES * 4, trainer)
    return _with_special_tokens(backend)


def qwen_tokenizer() -> PreTrainedTokenizerFast:
    """Qwen2's vocabulary with LLaVA-OneVision's special tokens, 151643 to 151647. Needs :data:`QWEN_VOCABULARY`."""
    vocabulary = json.loads((QWEN_VOCABULARY / "vocab.json").read_text(encoding="utf-8"))
    lines = (QWEN_VOCABULARY / "merges.txt").read_text(encoding="utf-8").splitlines()
    merges = [tuple(line.split(" ")) for line in lines if line and not line.startswith("#version")]
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    backend.pre_tokenizer = _qwen_split()
    backend.decoder = decoders.ByteLevel()
    return _with_special_tokens(backend)


def _qwen_split() -> pre_tokenizers.PreTokenizer:
    split = pre_tokenizers.Split(Regex(_QWEN_SPLIT), behavior="isolated")
    return pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def _with_special_tokens(backend: Tokenizer) -> PreTrainedTokenizerFast:
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>", "<image>", "<video>"],
        model_max_length=32768,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def profile_of(tokenizer: PreTrainedTokenizerFast) -> ScoreProfile:
    """The training-consistent question and words with this tokenizer's ids."""
    ids = [tokenizer.encode(word, add_special_tokens=False) for word in LEVEL_WORDS]
    return ScoreProfile(
        question=TRAINING_CONSISTENT.question,
        answer_prefix=TRAINING_CONSISTENT.answer_prefix,
        level_words=LEVEL_WORDS,
        level_token_ids=tuple(word[0] for word in ids),
        scope="synthetic distortions",
    )


def picture_logits(model: LlavaOnevisionForConditionalGeneration, seed: int = 0) -> torch.Tensor:
    """Logits (V,) after a picture of 3 x 2 tiles of 128 and one word, from random pixels that no processor touched.

    For models of tile 128 and patch 16 (``official=False``).
    """
    generator = torch.Generator().manual_seed(seed)
    pixels = (torch.rand(1, 7, 3, 128, 128, generator=generator) * 2 - 1).to(model.dtype)
    image = model.config.image_token_index
    ids = torch.tensor([[260] + [image] * (64 + 24 * 17) + [261]])  # base view, 24 rows of 16 and their newlines
    with torch.no_grad():
        return model(input_ids=ids, pixel_values=pixels, image_sizes=torch.tensor([[384, 256]])).logits[0, -1]
