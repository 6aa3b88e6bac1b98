"""Q-SiT Until Good: Start. It gives the seed of a try; what depends on it runs again for each try."""

from __future__ import annotations

import time

from comfy_api.latest import io
from comfy_execution.utils import get_executing_context

from qsit_plugin.nodes.base import CATEGORY, QSiTLoop, QSiTNode, schema
from qsit_plugin.nodes.tries import SEEDS, Loop


class UntilGoodStart(QSiTNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            search_aliases=["retry", "try again", "until good", "loop", "repeat", "seed"],
            node_id="QSiT_UntilGoodStart",
            display_name="Q-SiT Until Good: Start",
            category=CATEGORY,
            description="Begins a loop: gives a seed to the sampler, and a new one for each try until Q-SiT Until "
            "Good: End has an image that is good enough.",
            inputs=[
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=SEEDS - 1,
                    control_after_generate=True,
                    tooltip="The seed of the first try. Each further try has the next number.",
                ),
            ],
            outputs=[
                QSiTLoop.Output("loop", display_name="loop", tooltip="For Q-SiT Until Good: End, straight from here."),
                io.Int.Output(
                    "seed_out",
                    display_name="seed",
                    tooltip="The seed of this try: connect it to the seed of the sampler, or of RandomNoise. What "
                    "depends on it runs again for each try.",
                ),
            ],
        )

    @classmethod
    def run(cls, seed: int) -> io.NodeOutput:
        return io.NodeOutput(Loop(seed, get_executing_context().prompt_id, time.monotonic()), seed)
