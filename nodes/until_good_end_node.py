"""Q-SiT Until Good: End. What lies between Start and it runs again with a new seed until its images are good enough."""

from __future__ import annotations

import time
from collections.abc import Sequence
from statistics import fmean
from typing import Any

from comfy_api.latest import io
from comfy_execution.graph_utils import ExecutionBlocker, is_link
from comfy_execution.utils import get_executing_context

from qsit_plugin.nodes.base import (
    CATEGORY,
    QSiTLoop,
    QSiTModel,
    QSiTNode,
    QSiTScores,
    hidden_schema,
    schema,
    score_input,
)
from qsit_plugin.nodes.candidates import IF_NONE
from qsit_plugin.nodes.errors import InputError
from qsit_plugin.nodes.lists import named, one
from qsit_plugin.nodes.loop import between, copy_of
from qsit_plugin.nodes.pictures import pictures_of
from qsit_plugin.nodes.records import Record, fraction
from qsit_plugin.nodes.tries import MOST_TRIES, SEEDS, Loop, Tries, spent
from qsit_plugin.nodes.until_good_start_node import UntilGoodStart

QSiTTries = io.Custom("QSIT_TRIES")


class Ending(QSiTNode):
    """What the first try and further ones share. Two classes below it, because ComfyUI keeps what it reads of a schema
    on the class, where a class derived from it would find that of the other."""

    UI = ("images", "text", "qsit")
    HAS_INTERMEDIATE_OUTPUT = False
    """The result lies with the try that gave it, so the cache has nothing to show here."""

    @classmethod
    def inputs(cls) -> list[io.Input]:
        return [
            QSiTLoop.Input("loop", tooltip="From Q-SiT Until Good: Start, straight."),
            QSiTModel.Input("model", tooltip="From Load Q-SiT Model."),
            io.Image.Input("images", tooltip="The images of a try, made with the seed of Start."),
            score_input(
                "threshold",
                default=0.6,
                tooltip="A try is good enough at this score. A batch or a list counts by the mean of its images.",
            ),
            io.Int.Input(
                "max_tries",
                default=10,
                min=1,
                max=MOST_TRIES,
                tooltip="At most this many tries. ComfyUI holds the tries of a loop one inside another, so there is an "
                "end to them.",
            ),
            io.Float.Input(
                "max_seconds",
                default=0.0,
                min=0.0,
                max=1e6,
                step=1.0,
                tooltip="No new try begins after this many seconds. 0 sets no limit.",
            ),
            io.Combo.Input(
                "if_none",
                options=list(IF_NONE),
                default=IF_NONE[0],
                tooltip="When no try is good enough: take the best, stop this branch silently, or stop it with an "
                "error.",
            ),
            io.Latent.Input("latents", optional=True, tooltip="Latents of a try, to be carried along with its images."),
            io.AnyType.Input(
                "extra",
                optional=True,
                tooltip="Anything else that belongs to a try, such as a conditioning or a mask, to be carried along.",
            ),
        ]

    @classmethod
    def outputs(cls, lists: bool) -> list[io.Output]:
        """``lists``: not for what an expansion gives: ComfyUI takes one value an output there, so a list as a whole."""
        return [
            io.Image.Output(
                "image_out",
                display_name="images",
                is_output_list=lists,
                tooltip="Images of the try that was taken.",
            ),
            io.Int.Output("seed", display_name="seed", tooltip="Its seed. Never blocked."),
            io.Float.Output("score", display_name="score", tooltip="Its score, 0 to 1. Never blocked."),
            io.Int.Output("tries", display_name="tries", tooltip="How many tries there were. Never blocked."),
            io.Boolean.Output("is_pass", display_name="is pass", tooltip="Whether it is good enough. Never blocked."),
            QSiTScores.Output(
                "scores",
                display_name="scores",
                tooltip="The records of its images, with their seed: Q-SiT Save with Score writes it into the file.",
            ),
            io.Latent.Output("latents_out", display_name="latents", is_output_list=lists, tooltip="Its latents."),
            io.AnyType.Output(
                "extra_out", display_name="extra", is_output_list=lists, tooltip="What came in as extra with it."
            ),
            io.String.Output("report", display_name="report", tooltip="Seed and score of each try."),
        ]

    @classmethod
    def run(
        cls,
        loop: Sequence[Any],
        model: Sequence[Any],
        images: Sequence[Any],
        threshold: Sequence[float],
        max_tries: Sequence[int],
        max_seconds: Sequence[float],
        if_none: Sequence[str],
        latents: Sequence[Any] | None = None,
        extra: Sequence[Any] | None = None,
        so_far: Sequence[Tries] | None = None,
    ) -> io.NodeOutput:
        needed = fraction(one(threshold, "threshold"), "threshold")
        before, token = so_far[0] if so_far else None, one(loop, "loop")
        if not isinstance(token, Loop):
            raise InputError("loop must come straight from Q-SiT Until Good: Start")
        if before is None:  # a Start that ComfyUI's cache answers for began in an earlier run
            this_run = token.prompt == get_executing_context().prompt_id
            before = Tries(cls.hidden.unique_id, token.began if this_run else time.monotonic())
        records = _records(one(model, "model"), images)
        carried = {"images": list(images), "latents": latents, "extra": extra, "records": records}
        now = before.with_try(token.seed, fmean(record["score"] for record in records), carried)
        passed = now.scores[-1] >= needed
        over = spent(now, one(max_tries, "max_tries"), one(max_seconds, "max_seconds"))
        if not passed and over is None:
            return cls.again(now, token, needed)
        return cls.finish(now, passed, needed, one(if_none, "if_none"), over)

    @classmethod
    def again(cls, now: Tries, token: Loop, needed: float) -> io.NodeOutput:
        """Show the state, and expand to one more try."""
        graph, end = cls.hidden.dynprompt, cls.hidden.unique_id
        me = graph.get_node(end)
        start = me["inputs"]["loop"][0] if is_link(me["inputs"]["loop"]) else ""
        if not start or graph.get_node(start)["class_type"] != UntilGoodStart.SCHEMA.node_id:
            raise InputError("loop must come straight from Q-SiT Until Good: Start")
        inside = between(start, end, graph.get_node)
        if not inside:
            raise InputError(
                "nothing between Start and End depends on the seed of Start, so a new try would give the same images; "
                "connect it to the seed of the sampler"
            )
        best = now.best
        assert best is not None  # there has been a try
        text = f"{now.lines[-1]} (needed: {needed:g}); best so far: {best.score:.3f}, try {best.number}"
        cls.tell(text, cls.previews(*best.carried["images"]) if best.number == len(now.scores) else [])
        made = copy_of([start, *inside, end], graph.get_node, now.prefix, f"{now.root}.{len(now.scores) + 1}.")
        first, last = list(made)[0], list(made)[-1]
        made[first]["inputs"] = {"seed": (token.seed + 1) % SEEDS}
        made[last]["class_type"] = "QSiT_UntilGoodAgain"
        made[last]["inputs"]["so_far"] = now
        return io.NodeOutput(*([last, slot] for slot in range(len(cls.SCHEMA.outputs))), expand=made)

    @classmethod
    def finish(cls, now: Tries, passed: bool, needed: float, otherwise: str, over: str | None) -> io.NodeOutput:
        best, count = now.best, len(now.scores)
        assert best is not None  # there has been a try
        verdict = f"taken: try {best.number}, seed {best.seed}"
        if not passed:
            verdict = f"none reaches {needed:g} ({over}); the best: try {best.number}, seed {best.seed}"
        text = "\n".join([*now.lines, verdict])
        if not passed and otherwise == "error":
            raise InputError(f"none of {count} tries reaches {needed:g} ({over}); the best: {best.score:.3f}")
        blocked, got = ExecutionBlocker(None), best.carried
        stop = not passed and otherwise == "stop silently"
        about = {"seed": best.seed, "try": best.number, "tries": count}
        records = [record | about for record in got["records"]]
        return cls.show(
            blocked if stop else got["images"],
            best.seed,
            best.score,
            count,
            passed,
            blocked if stop else records,
            blocked if stop or got["latents"] is None else list(got["latents"]),
            blocked if stop or got["extra"] is None else list(got["extra"]),
            text,
            text=text,
            images=[] if stop else cls.previews(*got["images"]),
            records=[about | {"score": best.score, "scores": list(now.scores), "passed": passed}],
        )


class UntilGoodEnd(Ending):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            search_aliases=["retry", "try again", "until good", "loop", "repeat", "best of n", "best image"],
            node_id="QSiT_UntilGoodEnd",
            display_name="Q-SiT Until Good: End",
            category=CATEGORY,
            description="Ends a loop: what lies between Start and here runs again with a new seed until the score is "
            "reached, or the tries or the time are spent. Keeps the best.",
            is_input_list=True,
            is_output_node=True,
            hidden=[io.Hidden.unique_id, io.Hidden.dynprompt],
            inputs=cls.inputs(),
            outputs=cls.outputs(lists=True),
        )


class UntilGoodAgain(Ending):
    """A further try of UntilGoodEnd. Made by it, never placed by a user."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return hidden_schema(
            node_id="QSiT_UntilGoodAgain",
            display_name="Q-SiT Until Good: End",
            category=CATEGORY,
            description="A further try of Q-SiT Until Good: End. Made by that node, not to be placed.",
            is_input_list=True,
            is_output_node=True,
            enable_expand=True,
            hidden=[io.Hidden.unique_id, io.Hidden.dynprompt],
            inputs=[*cls.inputs(), QSiTTries.Input("so_far", tooltip="The tries before this one.")],
            outputs=cls.outputs(lists=False),
        )


def _records(model: Any, images: Sequence[Any]) -> list[Record]:
    from qsit_plugin.nodes.handle import records_of

    pictures = [picture for name, batch in named(images, "images") for picture in pictures_of(batch, name)]
    return records_of(model.remembered_scores(pictures))
