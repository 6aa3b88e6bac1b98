"""Load Q-SiT Model: from the list of checkpoints to a QSIT_MODEL."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from comfy_api.latest import io

from qsit_plugin.errors import WeightsError
from qsit_plugin.nodes.base import CATEGORY, QSiTModel, QSiTNode, running_node, schema
from qsit_plugin.nodes.devices import DEFAULT, device_options
from qsit_plugin.nodes.errors import InputError
from qsit_plugin.nodes.folders import EMBEDDED, choices
from qsit_plugin.nodes.good_for import for_the_page, good_for
from qsit_plugin.nodes.models import checkpoint_folder, fetched, here, locate, model_folder
from qsit_plugin.nodes.queued import queued_input
from qsit_plugin.protocol import ProfileError

DTYPES = ["auto", "bfloat16", "float16", "float32", "8bit", "4bit"]
QUANTIZED = ("8bit", "4bit")
DOWNLOADS = ["never", "if missing"]


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
                for_the_page(
                    io.Combo.Input(
                        "model_name",
                        options=choices(here()),
                        default=EMBEDDED,
                        tooltip="qsit-nano is built in, small, and finds technical faults; whether a generated picture "
                        "is well made, qsit-mini says better. Folders of models/qsit and models/LLM with a LLaVA-"
                        "OneVision checkpoint are listed; qsit-mini and qsit are the published models.",
                    )
                ),
                io.Combo.Input(
                    "dtype",
                    options=DTYPES,
                    default="auto",
                    tooltip="Number format of the weights. auto: ComfyUI's choice for your device. 8bit and 4bit take "
                    "a half or a quarter of the memory of 16 bits, are slower, give other scores, and need the package "
                    "bitsandbytes.",
                ),
                io.Combo.Input(
                    "download",
                    options=DOWNLOADS,
                    default="never",
                    tooltip="Whether qsit-mini (1.8 GB) or qsit (16 GB) may be fetched from the Hugging Face Hub into "
                    "its cache when it is not on this machine.",
                ),
                # Optional and last: workflows from before they were there keep the values of the others.
                advanced(
                    io.Combo.Input(
                        "device",
                        options=device_options(),
                        default=DEFAULT,
                        optional=True,
                        tooltip="Where the model runs. default: ComfyUI's device. Several GPUs are listed.",
                    )
                ),
                advanced(
                    io.String.Input(
                        "folder",
                        default="",
                        optional=True,
                        tooltip="A checkpoint folder anywhere in ComfyUI's model folders, such as diffusers/my-qsit. "
                        "It takes the place of model_name; empty: model_name counts.",
                    )
                ),
                advanced(
                    io.String.Input(
                        "adapter",
                        default="",
                        optional=True,
                        tooltip="A peft adapter (LoRA) that this package trained, to be merged: its folder in "
                        "ComfyUI's model folders, such as loras/my-adapter. Empty: none.",
                    )
                ),
            ],
            outputs=[
                QSiTModel.Output("model", display_name="model", tooltip="For every Q-SiT node that looks at images.")
            ],
        )

    @classmethod
    def validate_inputs(cls, model_name: str | None = None) -> bool | str:
        """Said before anything runs: a model that is not here. What is linked is judged in ``run``."""
        folder = queued_input(running_node(), "folder")
        try:
            if isinstance(folder, str) and folder.strip():
                checkpoint_folder(folder)
            elif model_name is not None and not isinstance(folder, list):
                locate(model_name, may_download=queued_input(running_node(), "download") != "never")
        except (InputError, WeightsError) as error:
            return str(error)
        return True

    @classmethod
    def fingerprint_inputs(cls, model_name: str, folder: str = "", adapter: str = "", **inputs: Any) -> Any:
        refusals = super().fingerprint_inputs()
        try:
            place = _chosen(model_name, folder, may_download=True)
            added = [model_folder(adapter, "adapter")] if (adapter or "").strip() else []
        except (InputError, WeightsError):
            return refusals
        files = [file for part in [*added, *([place] if place else [])] for file in _files(part)]
        return [refusals, *((str(path), path.stat().st_mtime_ns, path.stat().st_size) for path in files)]

    @classmethod
    def run(
        cls, model_name: str, dtype: str, download: str, device: str = DEFAULT, folder: str = "", adapter: str = ""
    ) -> io.NodeOutput:
        if dtype in QUANTIZED:
            _check_bitsandbytes(dtype)
        added = model_folder(adapter, "adapter") if adapter.strip() else None
        place = _chosen(model_name, folder, may_download=download != "never") or fetched(model_name)
        from qsit_plugin.nodes.handle import open_handle  # transformers: only when a model is opened

        name = folder.strip() or model_name
        try:
            handle = open_handle(place, name, dtype, device=device, adapter=added)
        except ProfileError as error:
            raise WeightsError(str(error)) from error
        number = dtype if dtype in QUANTIZED else str(handle.model.dtype).removeprefix("torch.")
        text = f"{name}: {number}, {handle.patcher.load_device}, scores follow {handle.model.scope}"
        text += f", adapter {added.name}" if added is not None else ""
        text += f", weights {handle.model.fingerprint}"
        return cls.show(handle, text="\n".join(filter(None, [text, good_for(name) if added is None else ""])))


def advanced(part: Any) -> Any:
    """An input that newer versions (0.33) fold away until it is asked for; 0.3.64 shows it always."""
    part.advanced = True  # no argument of 0.3.64, which would refuse the pack
    return part


def _chosen(model_name: str, folder: str, *, may_download: bool) -> Path | None:
    """The checkpoint's folder; None for an official model that is still to be downloaded. Raises as locate."""
    return checkpoint_folder(folder) if (folder or "").strip() else locate(model_name, may_download=may_download)


def _files(folder: Path) -> list[Path]:
    """The files whose change makes it another model."""
    configs = [folder / name for name in ("config.json", "adapter_config.json", "qsit.json")]
    return [*filter(Path.is_file, configs), *sorted(folder.glob("*.safetensors"))]


def _check_bitsandbytes(dtype: str) -> None:
    from qsit_plugin.checkpoint.quantization import require_bitsandbytes

    try:
        require_bitsandbytes(dtype)
    except ImportError as error:
        raise InputError(
            f"choose another dtype, or install bitsandbytes into ComfyUI's Python (pip install bitsandbytes) and start "
            f"ComfyUI again: {dtype} weights need it ({error})"
        ) from error
