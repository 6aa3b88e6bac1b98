"""Q-SiT Contact Sheet: a whole batch or list in one image, with numbers and scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from comfy_api.latest import io

from qsit_plugin.nodes.base import CATEGORY, QSiTNode, QSiTScores, schema
from qsit_plugin.nodes.drawing import contact_sheet
from qsit_plugin.nodes.lists import all_records, named, one
from qsit_plugin.nodes.pictures import batch_of, pictures_of
from qsit_plugin.nodes.rank import ORDERS, top
from qsit_plugin.nodes.records import report, values

AS_GIVEN = "as given"


class ContactSheet(QSiTNode):
    UI = ("images", "text", "qsit")

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            search_aliases=["grid", "image grid", "thumbnails", "montage"],
            node_id="QSiT_ContactSheet",
            display_name="Q-SiT Contact Sheet",
            category=CATEGORY,
            description="Puts a batch, or a whole list of any sizes, into one image, each picture with its number and "
            "score.",
            is_input_list=True,
            is_output_node=True,
            inputs=[
                io.Image.Input("images", tooltip="The images that were scored."),
                QSiTScores.Input("scores", tooltip="The output scores of Q-SiT Score for these images."),
                io.Combo.Input(
                    "order", options=[*ORDERS, AS_GIVEN], default=ORDERS[0], tooltip="How the pictures are sorted."
                ),
                io.Int.Input("columns", default=4, min=1, max=64, tooltip="Pictures in a row."),
                io.Int.Input("cell", default=256, min=32, max=2048, tooltip="Side of a picture's place, in pixels."),
            ],
            outputs=[io.Image.Output("sheet", display_name="sheet", tooltip="One image with all pictures.")],
        )

    @classmethod
    def run(
        cls,
        images: Sequence[Any],
        scores: Sequence[Any],
        order: Sequence[str],
        columns: Sequence[int],
        cell: Sequence[int],
    ) -> io.NodeOutput:
        pictures = [picture for name, batch in named(images, "images") for picture in pictures_of(batch, name)]
        records = all_records(scores, len(pictures))
        how = one(order, "order")
        indices = list(range(len(pictures))) if how == AS_GIVEN else top(values(records), 0, how)
        sheet = contact_sheet(pictures, records, indices, one(columns, "columns"), one(cell, "cell"))
        image = batch_of([sheet])
        return cls.show(image, text=report(records), images=cls.previews(image))
