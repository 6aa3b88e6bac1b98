"""The released procedure, through transformers' own processor and ``generate``: what everything is held against."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image

from qsit_plugin.protocol import ScoreProfile


def pil_image_processor(folder: Path):
    """The Pillow-backed image processor of either transformers generation; the torchvision one resizes differently."""
    import transformers

    if int(transformers.__version__.split(".")[0]) >= 5:
        return transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")
    return transformers.AutoImageProcessor.from_pretrained(folder, use_fast=False)


class Released:
    """Processor, model and ``generate`` for a checkpoint folder, one image at a time, as the authors' script does."""

    def __init__(self, folder: Path):
        from transformers import AutoProcessor, LlavaOnevisionForConditionalGeneration

        self.processor = AutoProcessor.from_pretrained(folder)
        self.processor.image_processor = pil_image_processor(folder)
        self.model = LlavaOnevisionForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()

    def inputs(self, image: Image.Image, question: str, answer_prefix: str = ""):
        content = [{"type": "text", "text": question}, {"type": "image"}]
        text = self.processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
        return self.processor(images=image, text=text + answer_prefix, return_tensors="pt")

    def level_logits(self, image: Image.Image, profile: ScoreProfile) -> torch.Tensor:
        """(5,) float32 logits of the first generated token."""
        out = self.model.generate(
            **self.inputs(image, profile.question, profile.answer_prefix),
            max_new_tokens=1,
            do_sample=False,
            output_logits=True,
            return_dict_in_generate=True,
        )
        return out.logits[0][0, list(profile.level_token_ids)].float()

    def answer_ids(self, image: Image.Image, question: str, max_new_tokens: int) -> list[int]:
        """Greedy tokens after the prompt."""
        inputs = self.inputs(image, question)
        out = self.model.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False)
        return out[0, inputs["input_ids"].shape[1] :].tolist()
