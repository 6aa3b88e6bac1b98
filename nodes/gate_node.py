"""Q-SiT Gate: good images go one way, the others another way, with the latents and masks that belong to them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from comfy_api.latest import io
from comfy_execution.graph_utils import ExecutionBlocker

from qsit_plugin.nodes.base import CATEGORY, QSiTNode, QSiTScores, schema, score_input
from qsit_plugin.nodes.carry import check_latents, check_masks, some_images, some_latents, some_masks
from qsit_plugin.nodes.gate import MODES, judge, summary
from qsit_plugin.nodes.pictures import check_batch
from qsit_plugin.nodes.records import fraction, values

SILENT, SAY = "stop silently", "stop and say so"


class Gate(QSiTNode):
    UI = ("images", "text", "qsit")

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            search_aliases=["filter", "filter images", "quality filter", "threshold", "switch", "reject"],
            node_id="QSiT_Gate",
            display_name="Q-SiT Gate",
            category=CATEGORY,
            description="Sends good images one way and the others another way. A side without images stops there; the "
            "rest of the workflow goes on.",
            inputs=[
                io.Image.Input("images", tooltip="The images that were scored."),
                QSiTScores.Input("scores", tooltip="The output scores of Q-SiT Score for these images."),
                score_input(
                    "threshold",
                    default=0.5,
                    tooltip="An image passes when its score is this high or higher.",
                ),
                io.Combo.Input(
                    "mode",
                    options=list(MODES),
                    default="per image",
                    tooltip="per image: each goes its own way. all, any, mean: the whole batch passes when every image "
                    "is good enough, when one is, or when the mean score is.",
                ),
                io.Combo.Input(
                    "empty_side",
                    options=[SILENT, SAY],
                    default=SILENT,
                    tooltip="What happens behind a side that gets no images: nothing runs there, silently or "
                    "with an error message for each node that would have run.",
                ),
                io.Latent.Input("latents", optional=True, tooltip="Latents of the images, to be carried along."),
                io.Mask.Input("masks", optional=True, tooltip="Masks of the images, to be carried along."),
            ],
            outputs=[
                io.Image.Output("passed", display_name="passed", tooltip="Images that are good enough."),
                io.Image.Output("rejected", display_name="rejected", tooltip="The other images."),
                io.Boolean.Output(
                    "is_pass",
                    display_name="is pass",
                    tooltip="True when anything passed. Never blocked: route with it in a switch.",
                ),
                io.Int.Output("n_passed", display_name="passed count", tooltip="How many passed. Never blocked."),
                io.Int.Output("n_rejected", display_name="rejected count", tooltip="How many did not. Never blocked."),
                io.Latent.Output("passed_latents", display_name="passed latents", tooltip="Latents of passed images."),
                io.Latent.Output(
                    "rejected_latents", display_name="rejected latents", tooltip="Latents of the other images."
                ),
                io.Mask.Output("passed_masks", display_name="passed masks", tooltip="Masks of passed images."),
                io.Mask.Output("rejected_masks", display_name="rejected masks", tooltip="Masks of the other images."),
                QSiTScores.Output("passed_scores", display_name="passed scores", tooltip="Scores of passed images."),
                QSiTScores.Output(
                    "rejected_scores", display_name="rejected scores", tooltip="Scores of the other images."
                ),
                io.String.Output("report", display_name="report", tooltip="How many passed and which did not."),
            ],
        )

    @classmethod
    def run(
        cls,
        images: Any,
        scores: Any,
        threshold: float,
        mode: str,
        empty_side: str,
        latents: Any = None,
        masks: Any = None,
    ) -> io.NodeOutput:
        count = check_batch(images)
        numbers = values(scores, count)
        if latents is not None:
            check_latents(latents, count)
        if masks is not None:
            check_masks(masks, count)
        verdict = judge(numbers, fraction(threshold, "threshold"), mode)
        text = summary(verdict, threshold, mode)
        sides = (verdict.passed, verdict.rejected)

        def split(take: Callable[[list[int]], Any], there: bool = True, say: str | None = None) -> list[Any]:
            return [take(side) if there and side else ExecutionBlocker(say if there else None) for side in sides]

        passed, rejected = split(lambda side: some_images(images, side), say=text if empty_side == SAY else None)
        return cls.show(
            passed,
            rejected,
            verdict.is_pass,
            len(verdict.passed),
            len(verdict.rejected),
            *split(lambda side: some_latents(latents, side), latents is not None),
            *split(lambda side: some_masks(masks, side, count), masks is not None),
            *split(lambda side: [scores[i] for i in side]),
            text,
            text=text,
            images=cls.previews(passed) if verdict.passed else [],
            records=[{"passed": verdict.passed, "rejected": verdict.rejected}],
        )
