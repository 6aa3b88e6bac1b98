"""Q-SiT Attributes: six aspects of the quality of every image."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from qsit_plugin.nodes.base import CATEGORY, QSiTModel, QSiTNode, schema
from qsit_plugin.nodes.pictures import pictures_of
from qsit_plugin.protocol import ATTRIBUTES


class Attributes(QSiTNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            search_aliases=["sharpness", "blur", "noise", "exposure", "contrast", "jpeg artifacts", "iqa"],
            node_id="QSiT_Attributes",
            display_name="Q-SiT Attributes",
            category=CATEGORY,
            description="Rates sharpness, noise, exposure, color, contrast and compression of every image: 1 is good, "
            "for noise and compression too.",
            is_output_node=True,
            inputs=[
                QSiTModel.Input("model", tooltip="From Load Q-SiT Model."),
                io.Image.Input("images", tooltip="The images to look at."),
            ],
            outputs=[
                *(
                    io.Float.Output(
                        name,
                        display_name=f"{name} list",
                        is_output_list=True,
                        tooltip=f"One number an image, 0 to 1: how good its {name} is.",
                    )
                    for name in ATTRIBUTES
                ),
                io.String.Output(
                    "weakest",
                    display_name="weakest list",
                    is_output_list=True,
                    tooltip="One word an image: the aspect with the lowest number.",
                ),
                io.String.Output("report", display_name="report", tooltip="One line an image with all six numbers."),
            ],
        )

    @classmethod
    def run(cls, model: Any, images: Any) -> io.NodeOutput:
        found = model.for_each(pictures_of(images), lambda qsit, picture: qsit.attributes(picture))
        weakest = [min(aspects, key=aspects.__getitem__) for aspects in found]
        text = "\n".join(
            f"{i}: " + ", ".join(f"{name} {value:.2f}" for name, value in aspects.items())
            for i, aspects in enumerate(found, 1)
        )
        columns = [[aspects[name] for aspects in found] for name in ATTRIBUTES]
        return cls.show(*columns, weakest, text, text=text, records=found)
