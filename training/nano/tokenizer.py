"""qsit-nano's own tokenizer: byte-level BPE over the grammar, with Qwen2's special tokens."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from qsit_plugin import protocol

from ..synthetic import text
from ..synthetic.distortions import KINDS, Defect

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<image>", "<video>")
VOCABULARY = 1536


def corpus(samples: int = 20_000, seed: int = 0) -> Iterator[str]:
    """What the tokenizer is trained on: turns of the grammar, and the official questions."""
    rng = np.random.default_rng(seed)
    yield from (protocol.OFFICIAL.question, protocol.EXPLAIN, *protocol.ATTRIBUTES.values())
    for i in range(samples):
        defects = [Defect(KINDS[i % len(KINDS)], float(rng.uniform(0.07, 1.0)))] if i % 16 else []
        if defects and rng.random() < 0.15:
            other = KINDS[int(rng.integers(len(KINDS)))]
            defects += [Defect(other, float(rng.uniform(0.07, 1.0)))] if other != defects[0].name else []
        for turn in text.turns_for(defects, 1 + 4 * float(rng.random()), rng):
            yield f"system\nuser\n{turn.question}\nassistant\n{turn.answer}"


def build() -> PreTrainedTokenizerFast:
    """Train it (seconds). The five level words come out as single tokens; ``profile`` checks that."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus(), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>", "<image>", "<video>"],
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def profile(tokenizer: PreTrainedTokenizerFast) -> protocol.ScoreProfile:
    """The training-consistent read-out with this tokenizer's ids. Raises ProfileError where a word is two tokens."""
    words = tuple(f" {level}" for level in protocol.LEVELS)
    ids = tuple(tokenizer.encode(word, add_special_tokens=False)[0] for word in words)
    made = protocol.ScoreProfile(
        question=text.PROFILE_QUESTION,
        answer_prefix=text.PROFILE_PREFIX,
        level_words=words,
        level_token_ids=ids,
        scope="synthetic distortions",
        scope_kind="distortions",
    )
    made.check_tokenizer(tokenizer)
    return made
