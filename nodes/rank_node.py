"""Q-SiT Rank: the best (or worst) images of a batch, in order, with their latents and masks."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io
from comfy_execution.graph_utils import ExecutionBlocker

from qsit_plugin.nodes.base import CATEGORY, QSiTNode, QSiTScores, schema
from qsit_plugin.nodes.carry import check_latents, check_masks, some_images, some_latents, some_masks
from qsit_plugin.nodes.gate import numbers as counted
from qsit_plugin.nodes.pictures import check_batch
from qsit_plugin.nodes.rank import ORDERS, top
from qsit_plugin.nodes.records import fraction, line, values


class Rank(QSiTNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            search_aliases=["best image", "best of batch", "pick best", "sort images", "top k", "filter"],
            node_id="QSiT_Rank",
            display_name="Q-SiT Rank",
            category=CATEGORY,
            description="Sorts a batch by score and keeps the first images. Equal scores keep their order.",
            inputs=[
                io.Image.Input("images", tooltip="The images that were scored."),
                QSiTScores.Input("scores", tooltip="The output scores of Q-SiT Score for these images."),
                io.Int.Input("k", default=1, min=0, max=4096, tooltip="How many images to keep. 0 keeps all, sorted."),
                io.Combo.Input("order", options=list(ORDERS), default=ORDERS[0], tooltip="Which end comes first."),
                io.Float.Input(
                    "min_score",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="Images with a lower score are left out. When none is left, the image outputs stop there.",
                ),
                io.Latent.Input("latents", optional=True, tooltip="Latents of the images, to be carried along."),
                io.Mask.Input("masks", optional=True, tooltip="Masks of the images, to be carried along."),
            ],
            outputs=[
                io.Image.Output("image_out", display_name="images", tooltip="The kept images, in order."),
                io.Image.Output("first", display_name="first", tooltip="The first of them alone, by default the best."),
                io.Int.Output("count", display_name="count", tooltip="How many were kept. Never blocked."),
                io.String.Output(
                    "indices", display_name="numbers", tooltip="Their numbers in the batch, from 1: '3, 1'."
                ),
                io.Latent.Output("latents_out", display_name="latents", tooltip="Latents of the kept images."),
                io.Mask.Output("masks_out", display_name="masks", tooltip="Masks of the kept images."),
                QSiTScores.Output("scores_out", display_name="scores", tooltip="Scores of the kept images."),
                io.String.Output("report", display_name="report", tooltip="One line for each kept image."),
            ],
        )

    @classmethod
    def run(
        cls, images: Any, scores: Any, k: int, order: str, min_score: float, latents: Any = None, masks: Any = None
    ) -> io.NodeOutput:
        count = check_batch(images)
        numbers = values(scores, count)
        if latents is not None:
            check_latents(latents, count)
        if masks is not None:
            check_masks(masks, count)
        kept = top(numbers, k, order, fraction(min_score, "min_score"))
        text = "\n".join(line(i + 1, scores[i]) for i in kept) or f"no image reaches {min_score:g}"
        stop = ExecutionBlocker(None)
        return cls.show(
            some_images(images, kept) if kept else stop,
            some_images(images, kept[:1]) if kept else stop,
            len(kept),
            counted(kept),
            some_latents(latents, kept) if kept and latents is not None else stop,
            some_masks(masks, kept, count) if kept and masks is not None else stop,
            [scores[i] for i in kept] if kept else stop,
            text,
            text=text,
            records=[{"kept": kept}],
        )
