"""Q-SiT Quality Map: where in the image the quality is high or low."""

from __future__ import annotations

from typing import Any

import numpy as np
from comfy_api.latest import io
from PIL import Image

from qsit_plugin.nodes.base import CATEGORY, QSiTModel, QSiTNode, schema
from qsit_plugin.nodes.drawing import colors_of
from qsit_plugin.nodes.errors import InputError
from qsit_plugin.nodes.labels import with_legend
from qsit_plugin.nodes.pictures import batch_of, pictures_of


class QualityMap(QSiTNode):
    UI = ("images", "text", "qsit")

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            search_aliases=["heatmap", "blur map", "local quality", "iqa"],
            node_id="QSiT_QualityMap",
            display_name="Q-SiT Quality Map",
            category=CATEGORY,
            description="Scores overlapping square regions of every image: where is it good, where is it bad? Each "
            "region is scored as a separate image.",
            is_output_node=True,
            inputs=[
                QSiTModel.Input("model", tooltip="From Load Q-SiT Model."),
                io.Image.Input("images", tooltip="The images to look at."),
                io.Int.Input(
                    "window",
                    default=0,
                    min=0,
                    max=8192,
                    tooltip="Side of a region in pixels, at least 8. 0 takes a quarter of the shorter side, but at "
                    "least what the model sees at once.",
                ),
                io.Float.Input(
                    "overlap",
                    default=0.5,
                    min=0.0,
                    max=0.9,
                    step=0.05,
                    tooltip="Share of a region that its neighbour covers too. More is finer, and slower.",
                ),
                io.Float.Input(
                    "strength", default=0.5, min=0.0, max=1.0, step=0.05, tooltip="How much the colors cover the image."
                ),
                # Optional, so that graphs queued over the API from before it was there still run.
                io.Boolean.Input(
                    "legend",
                    default=False,
                    optional=True,
                    tooltip="Puts a color bar from 0 (bad) to 1 (good) beside overlay and map, which become wider. The "
                    "mask keeps the size of the images.",
                ),
            ],
            outputs=[
                io.Image.Output("overlay", display_name="overlay", tooltip="The images under the colors of the map."),
                io.Image.Output("map", display_name="map", tooltip="The colors alone: red is bad, green is good."),
                io.Mask.Output("mask", display_name="mask", tooltip="The scores as a mask: 1 is good, 0 is bad."),
                io.String.Output("report", display_name="report", tooltip="Lowest and highest score of each image."),
            ],
        )

    @classmethod
    def run(
        cls, model: Any, images: Any, window: int, overlap: float, strength: float, legend: bool = False
    ) -> io.NodeOutput:
        import comfy.model_management as mm
        import torch

        if 0 < window < 8:
            raise InputError(f"window must be 0 or at least 8 pixels, got {window}")
        pictures = pictures_of(images)
        cancel = mm.throw_exception_if_processing_interrupted
        options = {"window": window or None, "overlap": overlap, "on_region": cancel}
        maps = model.for_each(pictures, lambda qsit, picture: qsit.quality_map(picture, **options))
        colors = [Image.fromarray(colors_of(values)) for values in maps]
        covered = [Image.blend(picture, color, strength) for picture, color in zip(pictures, colors, strict=True)]
        if legend:
            colors, covered = ([with_legend(picture) for picture in pictures] for pictures in (colors, covered))
        text = "\n".join(f"{i}: from {m.min():.3f} to {m.max():.3f}" for i, m in enumerate(maps, 1))
        records = [{"lowest": float(m.min()), "highest": float(m.max())} for m in maps]
        mask = torch.from_numpy(np.stack(maps)).to(mm.intermediate_device())
        overlays = batch_of(covered)
        images = cls.previews(overlays)
        return cls.show(overlays, batch_of(colors), mask, text, text=text, records=records, images=images)
