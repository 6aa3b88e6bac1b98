"""Load Q-SiT Model: from the list of checkpoints to a QSIT_MODEL."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import folder_paths
from comfy_api.latest import io

from qsit_plugin.errors import WeightsError
from qsit_plugin.nodes.base import CATEGORY, QSiTModel, QSiTNode, running_node, schema
from qsit_plugin.nodes.errors import InputError
from qsit_plugin.nodes.folders import EMBEDDED, choices, found_models, why_not_offered
from qsit_plugin.nodes.queued import download_of
from qsit_plugin.protocol import ProfileError
from qsit_plugin.weights.catalogue import ENTRIES, resolve
from qsit_plugin.weights.folder import weight_files

DTYPES = ["auto", "bfloat16", "float16", "float32"]
DOWNLOADS = ["never", "if missing"]
NOT_HERE = "is not on this machine"
"""So weights/download.py calls a model that is absent, and not damaged."""
COPY = "put a copy of the model into models/qsit and choose that"


class LoadModel(QSiTNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            search_aliases=["aesthetic model", "iqa model", "image quality model"],
            node_id="QSiT_LoadModel",
            display_name="Load Q-SiT Model",
            category=CATEGORY,
            description="Opens a model that scores and explains image quality. ComfyUI manages its memory.",
            inputs=[
                io.Combo.Input(
                    "model_name",
                    options=choices(here()),
                    default=EMBEDDED,
                    tooltip="qsit-nano is built in and small; it sees technical faults, not whether a generated picture is "
                    "well made. Folders of models/qsit and models/LLM with a LLaVA-OneVision checkpoint are listed; "
                    "qsit-mini and qsit are the published models.",
                ),
                io.Combo.Input(
                    "dtype",
                    options=DTYPES,
                    default="auto",
                    tooltip="Number format of the weights. auto: ComfyUI's choice for your device.",
                ),
                io.Combo.Input(
                    "download",
                    options=DOWNLOADS,
                    default="never",
                    tooltip="Whether qsit-mini (1.8 GB) or qsit (16 GB) may be fetched from the Hugging Face Hub into "
                    "its cache when it is not on this machine.",
                ),
            ],
            outputs=[
                QSiTModel.Output("model", display_name="model", tooltip="For every Q-SiT node that looks at images.")
            ],
        )

    @classmethod
    def validate_inputs(cls, model_name: str | None = None) -> bool | str:
        """Said before anything runs: a model that is not here. A linked name or ``download`` is judged in ``run``."""
        if model_name is None:
            return True
        try:
            locate(model_name, may_download=download_of(running_node()) != "never")
        except (InputError, WeightsError) as error:
            return str(error)
        return True

    @classmethod
    def fingerprint_inputs(cls, model_name: str, **inputs: Any) -> Any:
        refusals = super().fingerprint_inputs()
        try:
            folder = locate(model_name, may_download=True)
        except (InputError, WeightsError):
            return refusals
        files = [folder / "config.json", *weight_files(folder)] if folder is not None else []
        return [refusals, *((str(path), path.stat().st_mtime_ns, path.stat().st_size) for path in files)]

    @classmethod
    def run(cls, model_name: str, dtype: str, download: str) -> io.NodeOutput:
        from qsit_plugin.nodes.handle import open_handle  # transformers: only when a model is opened

        folder = locate(model_name, may_download=download != "never") or _fetched(model_name)
        try:
            handle = open_handle(folder, model_name, dtype)
        except ProfileError as error:
            raise WeightsError(str(error)) from error
        number = str(handle.model.dtype).removeprefix("torch.")
        text = f"{model_name}: {number}, {handle.patcher.load_device}, scores follow {handle.model.scope}"
        text += f", weights {handle.model.fingerprint}"
        return cls.show(handle, text=text)


def here() -> dict[str, Path]:
    """Label -> folder of the checkpoints in ComfyUI's model folders, those of extra_model_paths.yaml included."""
    return found_models(_roots())


def _roots() -> dict[str, list[str]]:
    models = Path(folder_paths.models_dir)
    return {kind: [*_registered(kind), str(models / kind)] for kind in ("qsit", "LLM")}


def _registered(kind: str) -> list[str]:
    return folder_paths.get_folder_paths(kind) if kind in folder_paths.folder_names_and_paths else []


def locate(name: str, *, may_download: bool) -> Path | None:
    """The folder of a listed model; None for an official one that is still to be downloaded.

    Raises InputError for a name that is not in the list and for an official one that is not here and may not be
    fetched, WeightsError where the embedded one is damaged. The cure comes first: the page shows the beginning.
    """
    if name in ENTRIES:
        try:
            return resolve(name, download=False)
        except WeightsError as error:
            if ENTRIES[name].repo is not None and may_download and not _offline():
                return None
            if NOT_HERE not in str(error):  # a damaged copy has its own message
                raise
            raise InputError(_not_here(name)) from error
    found = here()
    if name not in found:
        if (reason := why_not_offered(_roots(), name)) is not None:
            raise InputError(f"replace the broken or foreign file of {name!r}, or choose another model_name: {reason}")
        raise InputError(
            f"choose another model_name, or put the folder of this one (config.json and *.safetensors) into "
            f"models/qsit or models/LLM: no model {name!r} here. Here are: {', '.join(choices(found))}"
        )
    return found[name]


def _fetched(name: str) -> Path:
    try:
        return resolve(name)
    except WeightsError as error:
        if NOT_HERE not in str(error):
            raise
        why = str(error).partition(". With network, run:")[0]  # a clone in custom_nodes has no such command
        raise InputError(f"run again when the Hub can be reached, or {COPY}: {why}") from error


def _not_here(name: str) -> str:
    size = f"{(ENTRIES[name].size or 0) / 1e9:.2g} GB"
    cure = f"set download to 'if missing' ({size} from the Hugging Face Hub)"
    why = f"{name} {NOT_HERE}"
    if _offline():
        cure = f"start ComfyUI without HF_HUB_OFFLINE and {cure}"
        why += ", and HF_HUB_OFFLINE=1 forbids to fetch it"
    return f"{cure}, or {COPY}: {why}"


def _offline() -> bool:
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)
