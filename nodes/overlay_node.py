"""Q-SiT Overlay: the score written onto every image."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from qsit_plugin.nodes.base import CATEGORY, QSiTNode, QSiTScores, schema
from qsit_plugin.nodes.drawing import with_bar
from qsit_plugin.nodes.pictures import batch_of, pictures_of
from qsit_plugin.nodes.records import report, values


class Overlay(QSiTNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            search_aliases=["draw score", "annotate", "label image"],
            node_id="QSiT_Overlay",
            display_name="Q-SiT Overlay",
            category=CATEGORY,
            description="Writes score and level onto every image, with a bar from red to green.",
            inputs=[
                io.Image.Input("images", tooltip="The images that were scored."),
                QSiTScores.Input("scores", tooltip="The output scores of Q-SiT Score for these images."),
                io.Combo.Input("position", options=["bottom", "top"], default="bottom", tooltip="Which edge is used."),
            ],
            outputs=[io.Image.Output("image_out", display_name="images", tooltip="Marked copies of the same size.")],
        )

    @classmethod
    def run(cls, images: Any, scores: Any, position: str) -> io.NodeOutput:
        pictures = pictures_of(images)
        values(scores, len(pictures))
        marked = [with_bar(picture, record, position) for picture, record in zip(pictures, scores, strict=True)]
        return cls.show(batch_of(marked), text=report(scores))
