"""Q-SiT Explain: a description of the quality of every image of a batch, or an answer about it."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from qsit_plugin.nodes.base import CATEGORY, QSiTModel, QSiTNode, schema
from qsit_plugin.nodes.errors import InputError
from qsit_plugin.nodes.pictures import pictures_of
from qsit_plugin.nodes.questions import OWN, PRESETS, question_for


class Explain(QSiTNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            search_aliases=["describe image", "caption", "image quality", "what is wrong", "iqa"],
            node_id="QSiT_Explain",
            display_name="Q-SiT Explain",
            category=CATEGORY,
            description="Describes the quality of every image in words, or answers a question about it.",
            is_output_node=True,
            inputs=[
                QSiTModel.Input("model", tooltip="From Load Q-SiT Model."),
                io.Image.Input("images", tooltip="The images to look at, one answer for each."),
                io.Combo.Input(
                    "preset",
                    options=[*PRESETS, OWN],
                    default=next(iter(PRESETS)),
                    tooltip=f"What to ask. {OWN}: the text below.",
                ),
                io.String.Input(
                    "question",
                    default="",
                    multiline=True,
                    tooltip=f"Your question about the image, in English. Used with the preset '{OWN}'.",
                ),
                io.Int.Input(
                    "max_new_tokens",
                    default=200,
                    min=1,
                    max=2048,
                    tooltip="An answer ends here at the latest; a token is about three quarters of a word.",
                ),
                io.Float.Input(
                    "temperature",
                    default=0.0,
                    min=0.0,
                    max=2.0,
                    step=0.05,
                    tooltip="0 gives the most probable answer, always the same; above 0 answers vary with the seed.",
                ),
                io.Int.Input(
                    "sampling_seed",
                    default=0,
                    min=0,
                    max=0xFFFFFFFFFFFFFFFF,
                    tooltip="The same seed gives the same answer. Without effect at temperature 0.",
                ),
            ],
            outputs=[
                io.String.Output(
                    "text", display_name="text list", is_output_list=True, tooltip="One answer for each image."
                ),
                io.String.Output("report", display_name="report", tooltip="All answers in one text."),
            ],
        )

    @classmethod
    def run(
        cls,
        model: Any,
        images: Any,
        preset: str,
        question: str,
        max_new_tokens: int,
        temperature: float,
        sampling_seed: int,
    ) -> io.NodeOutput:
        asked = question_for(preset, question)
        options = {
            "max_new_tokens": max_new_tokens,
            "temperature": temperature if temperature > 0 else None,
            "seed": sampling_seed % 2**63,  # torch's generators take no more
        }
        try:
            model.model.prompt(asked)
        except ValueError as error:  # a question that contains the image token
            raise InputError(str(error)) from error
        answers = model.answers(pictures_of(images), asked, **options)
        texts = [answer.text for answer in answers]
        report = texts[0] if len(texts) == 1 else "\n\n".join(f"{i}: {text}" for i, text in enumerate(texts, 1))
        about = {"model": model.model.name, "fingerprint": model.model.fingerprint}
        records = [{"question": asked, "text": a.text, "finish_reason": a.finish_reason, **about} for a in answers]
        return cls.show(texts, report, text=report, records=records)
