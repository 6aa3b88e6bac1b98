"""A contender of inference.py: transformers' own forward, used as well as its public interface allows.

Pillow's processor, one prefill without ``generate``, logits at the last position only; further questions and answers go
on from a ``DynamicCache`` that ends with the image. Nothing of this package is in it: what it does not reach is
what the package is worth.
"""

from __future__ import annotations

import copy
import io
from typing import Any

import torch
from PIL import Image


class Forward:
    """Wraps the released contender's processor and model: the same objects, so both cost the same to open."""

    def __init__(self, released: Any):
        self.released, self.model, self.profile = released, released.model, released.profile
        self.weights = released.weights
        generation = self.model.generation_config.eos_token_id
        self.stops = set(generation if isinstance(generation, list) else [generation])

    def inputs(self, data: bytes, question: str, prefix: str = "") -> Any:
        return self.released.inputs(Image.open(io.BytesIO(data)).convert("RGB"), question, prefix)

    def prepare(self, files: list[bytes]) -> Any:
        return [self.inputs(data, self.profile.question, self.profile.answer_prefix) for data in files]

    @torch.inference_mode()
    def model_only(self, prepared: Any) -> list[float]:
        return [self._value(self.model(**one, use_cache=False, logits_to_keep=1).logits[0, -1]) for one in prepared]

    def score(self, files: list[bytes]) -> list[float]:
        return self.model_only(self.prepare(files))

    @torch.inference_mode()
    def score_and_ask(self, data: bytes, questions: tuple[str, ...], tokens: int) -> tuple[float, list[str]]:
        """One pass over the image for the score and every question: the texts after it go on from its cache."""
        first = self.inputs(data, self.profile.question, self.profile.answer_prefix)
        cache, length = self._prefix(first)
        score = self._value(self._read(first["input_ids"][:, length:], copy.deepcopy(cache))[0])
        answers = []
        for question in questions:
            ids = self._text_ids(question, first["input_ids"][0, :length])
            answers.append(self._write(ids, copy.deepcopy(cache), tokens))
        return score, answers

    @torch.inference_mode()
    def explain(self, files: list[bytes], question: str, tokens: int) -> list[str]:
        answers = []
        for data in files:
            inputs = self.inputs(data, question)
            cache, length = self._prefix(inputs)
            answers.append(self._write(inputs["input_ids"][:, length:], cache, tokens))
        return answers

    def _prefix(self, inputs: Any) -> tuple[Any, int]:
        """The cache up to the end of the image, and its length."""
        from transformers import DynamicCache

        ids = inputs["input_ids"]
        image_token = getattr(self.model.config, "image_token_id", None) or self.model.config.image_token_index
        length = int((ids[0] == image_token).nonzero()[-1]) + 1
        cache = DynamicCache(config=self.model.config.text_config)
        pixels = {name: inputs[name] for name in ("pixel_values", "image_sizes", "batch_num_images") if name in inputs}
        self.model(input_ids=ids[:, :length], past_key_values=cache, use_cache=True, logits_to_keep=1, **pixels)
        return cache, length

    def _text_ids(self, question: str, before: torch.Tensor) -> torch.Tensor:
        """The tokens after the image of another question, whose beginning must be the same."""
        processor = self.released.slow
        content = [{"type": "text", "text": question}, {"type": "image"}]
        text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
        head, tail = text.split("<image>")
        if processor.tokenizer.encode(head) != before[: len(processor.tokenizer.encode(head))].tolist():
            raise ValueError("this chat template puts the image after the question: its prefix cannot be shared")
        return torch.tensor([processor.tokenizer.encode(tail)], device=before.device)

    def _read(self, ids: torch.Tensor, cache: Any) -> torch.Tensor:
        return self.model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1).logits[:, -1]

    def _write(self, ids: torch.Tensor, cache: Any, tokens: int) -> str:
        written: list[int] = []
        for _ in range(tokens):
            token = int(self._read(ids, cache)[0].argmax())
            if token in self.stops:
                break
            written.append(token)
            ids = ids.new_tensor([[token]])
        return self.released.slow.tokenizer.decode(written, skip_special_tokens=True).strip()

    def _value(self, row: torch.Tensor) -> float:
        levels = row[list(self.profile.level_token_ids)].float().cpu()
        return float(levels.softmax(-1) @ self.weights)
