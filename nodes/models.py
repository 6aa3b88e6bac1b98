"""Where the model that a workflow names lies: in the list, or in any of ComfyUI's model folders."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import folder_paths

from qsit_plugin.errors import WeightsError
from qsit_plugin.nodes.errors import InputError
from qsit_plugin.nodes.folders import choices, found_models, why_no_checkpoint, why_not_offered
from qsit_plugin.weights.catalogue import ENTRIES, resolve

NOT_HERE = "is not on this machine"
"""So weights/download.py calls a model that is absent, and not damaged."""
COPY = "put a copy of the model into models/qsit and choose that"


def here() -> dict[str, Path]:
    """Label -> folder of the checkpoints in ComfyUI's model folders, those of extra_model_paths.yaml included."""
    return found_models(_roots())


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


def fetched(name: str) -> Path:
    """Download an official model. Raises InputError where that fails."""
    try:
        return resolve(name)
    except WeightsError as error:
        if NOT_HERE not in str(error):
            raise
        why = str(error).partition(". With network, run:")[0]  # a clone in custom_nodes has no such command
        raise InputError(f"run again when the Hub can be reached, or {COPY}: {why}") from error


def checkpoint_folder(name: str) -> Path:
    """The checkpoint folder of that name in any model folder. Raises InputError for none, or another kind of model."""
    folder = model_folder(name, "folder")
    if (reason := why_no_checkpoint(folder)) is not None:
        raise InputError(f"give the folder of a Q-SiT checkpoint: {folder / 'config.json'} {reason}")
    return folder


def model_folder(name: str, what: str) -> Path:
    """A folder in any of ComfyUI's model folders, as ``diffusers/my-qsit``, by the name that it has below models/.

    Folders of extra_model_paths.yaml count by their kind. An absolute path is taken where it lies in one of them; a
    workflow is somebody else's file, so others are an InputError, as is a folder that is not there.
    """
    asked = Path(os.path.normpath(name.strip()))
    if not name.strip() or ".." in asked.parts:
        raise InputError(f"{what} must name a folder below models/, such as qsit/my-model, got {name!r}")
    for place, root in _every_root():
        inside = asked.is_relative_to(root) if asked.is_absolute() else asked.is_relative_to(place)
        path = asked if asked.is_absolute() else root / asked.relative_to(place) if inside else asked
        if inside and path.is_dir():
            return path
    kinds = sorted({str(place) for place, _ in _every_root() if str(place) != "."})
    raise InputError(
        f"{what} {name!r} is in none of ComfyUI's model folders: give its name below models/, such as qsit/my-model; "
        f"extra_model_paths.yaml adds folders (here are {', '.join(kinds)})"
    )


def _every_root() -> Iterator[tuple[Path, Path]]:
    """(name below models/, folder) of every folder with models that ComfyUI knows, models/ itself first."""
    yield Path("."), Path(folder_paths.models_dir)
    for kind in folder_paths.folder_names_and_paths:
        if kind != "custom_nodes":
            yield from ((Path(kind), Path(root)) for root in folder_paths.get_folder_paths(kind))


def _roots() -> dict[str, list[str]]:
    models = Path(folder_paths.models_dir)
    return {kind: [*_registered(kind), str(models / kind)] for kind in ("qsit", "LLM")}


def _registered(kind: str) -> list[str]:
    return folder_paths.get_folder_paths(kind) if kind in folder_paths.folder_names_and_paths else []


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
