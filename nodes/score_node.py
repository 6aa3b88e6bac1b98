"""Q-SiT Score: a number, a level and a full record for every image of a batch."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from qsit_plugin.nodes import records
from qsit_plugin.nodes.base import CATEGORY, QSiTModel, QSiTNode, QSiTScores, schema
from qsit_plugin.nodes.pictures import pictures_of


class Score(QSiTNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            search_aliases=["aesthetic", "iqa", "image quality", "quality score", "rating", "rate image", "nr-iqa"],
            node_id="QSiT_Score",
            display_name="Q-SiT Score",
            category=CATEGORY,
            description="Scores the quality of every image: 0 is bad, 1 is excellent. The same image gives the same "
            "score.",
            is_output_node=True,
            inputs=[
                QSiTModel.Input("model", tooltip="From Load Q-SiT Model."),
                io.Image.Input("images", tooltip="The images to score. Alpha is dropped, values are cut to 0..1."),
                io.Combo.Input(
                    "aggregate",
                    options=list(records.AGGREGATES),
                    default="mean",
                    tooltip="How the scores of a batch become the one number of the output score.",
                ),
            ],
            outputs=[
                io.Image.Output("image_out", display_name="images", tooltip="The images, unchanged."),
                io.Float.Output("score", display_name="score", tooltip="One number for the batch, 0 to 1."),
                io.Float.Output(
                    "score_list", display_name="score list", is_output_list=True, tooltip="One number an image."
                ),
                io.String.Output(
                    "level",
                    display_name="level list",
                    is_output_list=True,
                    tooltip="One word an image: excellent, good, fair, poor or bad.",
                ),
                io.String.Output("report", display_name="report", tooltip="One line an image: number, score, level."),
                QSiTScores.Output(
                    "scores", display_name="scores", tooltip="The full records, for Gate, Rank and other Q-SiT nodes."
                ),
            ],
        )

    @classmethod
    def run(cls, model: Any, images: Any, aggregate: str) -> io.NodeOutput:
        from qsit_plugin.nodes.handle import records_of

        scores = records_of(model.scores(pictures_of(images)))
        numbers, text = records.values(scores), records.report(scores)
        levels = [score["level"] for score in scores]
        one = records.aggregate(numbers, aggregate)
        return cls.show(images, one, numbers, levels, text, scores, text=text, records=scores)
