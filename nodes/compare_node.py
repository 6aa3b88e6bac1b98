"""Q-SiT Compare: which of two images is better, and how sure that is."""

from __future__ import annotations

from statistics import fmean
from typing import Any

from comfy_api.latest import io

from qsit_plugin.nodes.base import CATEGORY, QSiTModel, QSiTNode, schema
from qsit_plugin.nodes.errors import InputError
from qsit_plugin.nodes.pictures import pictures_of


class Compare(QSiTNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            search_aliases=["better image", "a/b", "ab test", "image quality", "iqa"],
            node_id="QSiT_Compare",
            display_name="Q-SiT Compare",
            category=CATEGORY,
            description="Scores two images, or two batches pair by pair, and says how probable it is that A is better. "
            "Each image is judged alone.",
            is_output_node=True,
            inputs=[
                QSiTModel.Input("model", tooltip="From Load Q-SiT Model."),
                io.Image.Input("image_a", tooltip="One image, or a batch."),
                io.Image.Input("image_b", tooltip="As many images as A; the sizes may differ."),
            ],
            outputs=[
                io.Image.Output(
                    "winner",
                    display_name="winner list",
                    is_output_list=True,
                    tooltip="The better image of each pair, A when they are equal.",
                ),
                io.Boolean.Output(
                    "a_is_better",
                    display_name="A is better",
                    tooltip="Whether A is more probably the better one, over all pairs.",
                ),
                io.Float.Output(
                    "probability",
                    display_name="probability",
                    tooltip="How probable it is that A is better, 0 to 1; 0.5 is a tie. The mean over all pairs.",
                ),
                io.Float.Output(
                    "difference",
                    display_name="difference",
                    tooltip="Score of A minus score of B, the mean over all pairs.",
                ),
                io.String.Output("report", display_name="report", tooltip="One line a pair, and one for all of them."),
            ],
        )

    @classmethod
    def run(cls, model: Any, image_a: Any, image_b: Any) -> io.NodeOutput:
        from qsit_plugin.scores import Comparison

        first, second = pictures_of(image_a, "image_a"), pictures_of(image_b, "image_b")
        if len(first) != len(second):
            raise InputError(f"image_a has {len(first)} images, image_b {len(second)}: there must be as many of each")
        scores = model.scores([*first, *second])
        pairs = [Comparison(a, b) for a, b in zip(scores[: len(first)], scores[len(first) :], strict=True)]
        odds = [pair.probability_a_better for pair in pairs]
        gaps = [pair.score_a.value - pair.score_b.value for pair in pairs]
        winners = [(image_a if p >= 0.5 else image_b)[i : i + 1] for i, p in enumerate(odds)]
        text = "\n".join(
            f"{i}: A {pair.score_a.value:.3f} {pair.score_a.level}, B {pair.score_b.value:.3f} {pair.score_b.level}; "
            f"A is better with probability {p:.2f}"
            for i, (pair, p) in enumerate(zip(pairs, odds, strict=True), 1)
        )
        if len(pairs) > 1:
            better = sum(p > 0.5 for p in odds)
            text += f"\nall {len(pairs)} pairs: A is better in {better}, mean probability {fmean(odds):.2f}"
        records = [
            {"a": pair.score_a.to_dict(), "b": pair.score_b.to_dict(), "probability_a_better": p}
            for pair, p in zip(pairs, odds, strict=True)
        ]
        return cls.show(winners, fmean(odds) > 0.5, fmean(odds), fmean(gaps), text, text=text, records=records)
