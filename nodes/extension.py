"""What ComfyUI loads at its start: the model folder and the list of nodes."""

from __future__ import annotations

from pathlib import Path

import folder_paths
from comfy_api.latest import ComfyExtension, io
from server import PromptServer

from qsit_plugin.nodes.attributes_node import Attributes
from qsit_plugin.nodes.compare_node import Compare
from qsit_plugin.nodes.demo_node import DemoPhoto
from qsit_plugin.nodes.explain_node import Explain
from qsit_plugin.nodes.first_good_node import FirstGoodEnough
from qsit_plugin.nodes.folder_node import ScoreFolder
from qsit_plugin.nodes.gate_node import Gate
from qsit_plugin.nodes.load_node import LoadModel
from qsit_plugin.nodes.map_node import QualityMap
from qsit_plugin.nodes.overlay_node import Overlay
from qsit_plugin.nodes.queued import remember_loads
from qsit_plugin.nodes.rank_node import Rank
from qsit_plugin.nodes.refusal import Refusal
from qsit_plugin.nodes.save_node import SaveWithScore
from qsit_plugin.nodes.score_node import Score
from qsit_plugin.nodes.sheet_node import ContactSheet
from qsit_plugin.nodes.until_good_end_node import UntilGoodAgain, UntilGoodEnd
from qsit_plugin.nodes.until_good_start_node import UntilGoodStart

NODES: list[type[io.ComfyNode]] = [
    LoadModel,
    Score,
    Explain,
    Gate,
    Rank,
    FirstGoodEnough,
    UntilGoodStart,
    UntilGoodEnd,
    Compare,
    Attributes,
    Overlay,
    ContactSheet,
    QualityMap,
    SaveWithScore,
    ScoreFolder,
    DemoPhoto,
]

HIDDEN: list[type[io.ComfyNode]] = [Refusal, UntilGoodAgain]
"""Made while a workflow runs, in no menu."""


class QSiTExtension(ComfyExtension):
    """The pack. Everything happens in get_node_list: ComfyUI 0.3.64 never calls on_load."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        # With its own key, extra_model_paths.yaml can add folders for it as for any other kind of model.
        folder_paths.add_model_folder_path("qsit", str(Path(folder_paths.models_dir) / "qsit"), is_default=True)
        if getattr(PromptServer, "instance", None) is not None:
            PromptServer.instance.add_on_prompt_handler(remember_loads)
        return [*NODES, *HIDDEN]
