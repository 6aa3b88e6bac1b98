"""Q-SiT Overlay: the score written onto every image."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from qsit_plugin.nodes.base import CATEGORY, QSiTNode, QSiTScores, schema
from qsit_plugin.nodes.labels import POSITIONS, labelled
from qsit_plugin.nodes.pictures import batch_of, pictures_of
from qsit_plugin.nodes.records import report, values


class Overlay(QSiTNode):
    UI = ("images", "text", "qsit")

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            search_aliases=["draw score", "annotate", "label image"],
            node_id="QSiT_Overlay",
            display_name="Q-SiT Overlay",
            category=CATEGORY,
            description="Writes score and level onto every image, with a bar from red to green.",
            is_output_node=True,
            inputs=[
                io.Image.Input("images", tooltip="The images that were scored."),
                QSiTScores.Input("scores", tooltip="The output scores of Q-SiT Score for these images."),
                io.Combo.Input(
                    "position",
                    options=list(POSITIONS),
                    default=POSITIONS[0],
                    tooltip="bottom, top: over that edge. below, above, right: outside, so that nothing of the picture "
                    "is covered; the images become larger.",
                ),
            ],
            outputs=[
                io.Image.Output(
                    "image_out", display_name="images", tooltip="Marked copies; larger where the label is outside."
                )
            ],
        )

    @classmethod
    def run(cls, images: Any, scores: Any, position: str) -> io.NodeOutput:
        pictures = pictures_of(images)
        values(scores, len(pictures))
        marked = [labelled(picture, record, position) for picture, record in zip(pictures, scores, strict=True)]
        images_out = batch_of(marked)
        return cls.show(images_out, text=report(scores), images=cls.previews(images_out))
