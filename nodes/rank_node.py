"""Q-SiT Rank: the best (or worst) images of a batch or a whole list, in order, with their latents and masks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from comfy_api.latest import io
from comfy_execution.graph_utils import ExecutionBlocker

from qsit_plugin.nodes.base import CATEGORY, QSiTNode, QSiTScores, schema, score_input
from qsit_plugin.nodes.gate import numbers as counted
from qsit_plugin.nodes.lists import all_records, one, pool_of
from qsit_plugin.nodes.rank import ORDERS, top
from qsit_plugin.nodes.records import fraction, line, values


class Rank(QSiTNode):
    UI = ("images", "text", "qsit")

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            search_aliases=["best image", "best of batch", "pick best", "sort images", "top k", "filter"],
            node_id="QSiT_Rank",
            display_name="Q-SiT Rank",
            category=CATEGORY,
            description="Sorts a batch, or a whole list of any sizes, by score and keeps the first images. Equal "
            "scores keep their order.",
            is_input_list=True,
            inputs=[
                io.Image.Input("images", tooltip="The images that were scored."),
                QSiTScores.Input("scores", tooltip="The output scores of Q-SiT Score for these images."),
                io.Int.Input("k", default=1, min=0, max=4096, tooltip="How many images to keep. 0 keeps all, sorted."),
                io.Combo.Input("order", options=list(ORDERS), default=ORDERS[0], tooltip="Which end comes first."),
                score_input(
                    "min_score",
                    default=0.0,
                    tooltip="Images with a lower score are left out. When none is left, the image outputs stop there. "
                    "For a list use this, not a Gate before: one item that Gate stops would stop the whole node.",
                ),
                io.Latent.Input("latents", optional=True, tooltip="Latents of the images, to be carried along."),
                io.Mask.Input("masks", optional=True, tooltip="Masks of the images, to be carried along."),
            ],
            outputs=[
                io.Image.Output(
                    "image_out",
                    display_name="images",
                    is_output_list=True,
                    tooltip="The kept images, in order: one batch, or one by one where their sizes differ.",
                ),
                io.Image.Output("first", display_name="first", tooltip="The first of them alone, by default the best."),
                io.Int.Output("count", display_name="count", tooltip="How many were kept. Never blocked."),
                io.String.Output(
                    "indices", display_name="numbers", tooltip="Their numbers in the batch or list, from 1: '3, 1'."
                ),
                io.Latent.Output(
                    "latents_out", display_name="latents", is_output_list=True, tooltip="Latents of the kept images."
                ),
                io.Mask.Output(
                    "masks_out", display_name="masks", is_output_list=True, tooltip="Masks of the kept images."
                ),
                QSiTScores.Output(
                    "scores_out", display_name="scores", is_output_list=True, tooltip="Scores of the kept images."
                ),
                io.String.Output("report", display_name="report", tooltip="One line for each kept image."),
            ],
        )

    @classmethod
    def run(
        cls,
        images: Sequence[Any],
        scores: Sequence[Any],
        k: Sequence[int],
        order: Sequence[str],
        min_score: Sequence[float],
        latents: Sequence[Any] | None = None,
        masks: Sequence[Any] | None = None,
    ) -> io.NodeOutput:
        pool = pool_of(images, latents, masks)
        records = all_records(scores, len(pool))
        least = fraction(one(min_score, "min_score"), "min_score")
        kept = top(values(records), one(k, "k"), one(order, "order"), least)
        text = "\n".join(line(i + 1, records[i]) for i in kept) or f"no image reaches {least:g}"
        stop, groups = ExecutionBlocker(None), pool.groups(kept)
        found = [pool.some_images(group) for group in groups] if kept else []
        return cls.show(
            found or stop,
            pool.some_images(kept[:1]) if kept else stop,
            len(kept),
            counted(kept),
            [pool.some_latents(group) for group in groups] if kept and latents is not None else stop,
            [pool.some_masks(group) for group in groups] if kept and masks is not None else stop,
            [[records[i] for i in group] for group in groups] if kept else stop,
            text,
            text=text,
            images=cls.previews(*found),
            records=[{"kept": kept}],
        )
