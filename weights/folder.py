"""Checks of a checkpoint folder by its files alone: complete, safetensors only, no code."""

from __future__ import annotations

from pathlib import Path

from qsit_plugin.weights.errors import WeightsError, short
from qsit_plugin.weights.json_file import is_file_name, read_json

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
INDEX = "model.safetensors.index.json"


def check_folder(folder: str | Path) -> Path:
    """Return the folder, or raise WeightsError unless it holds a config, complete safetensors weights and no code."""
    folder = Path(folder)
    if not folder.is_dir():
        raise WeightsError(f"{folder} is not a folder; give the folder that holds config.json and *.safetensors")
    if not (folder / "config.json").is_file():
        raise WeightsError(_no_config(folder))
    for path in sorted(folder.glob("*.json")):
        if path.name.endswith("config.json") and "auto_map" in read_json(path):
            raise WeightsError(
                f"{path} asks for custom code (auto_map); this package never runs a checkpoint's code. "
                "Use a checkpoint of transformers' own LlavaOnevisionForConditionalGeneration"
            )
    weight_files(folder)
    return folder


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a checkpoint folder, by its index where it has one."""
    if (folder / INDEX).is_file():
        mapping = read_json(folder / INDEX).get("weight_map", {})
        if not isinstance(mapping, dict) or not all(isinstance(name, str) for name in mapping.values()):
            raise WeightsError(
                f"{folder / INDEX}: weight_map must map the names of weights to the names of files; download or copy "
                "the file again"
            )
        names = sorted(set(mapping.values()))
        if not all(map(is_file_name, names)):
            raise WeightsError(
                f"{folder / INDEX} names what is no file of its folder: {short(names)}; download the checkpoint again"
            )
        files = [folder / name for name in names]
    else:
        files = [folder / "model.safetensors"]
    absent = [path.name for path in files if not path.is_file()]
    if not absent and files:
        return files
    pickles = sorted(path.name for path in folder.iterdir() if path.suffix in PICKLES)
    if pickles and not any(folder.glob("*.safetensors")):
        raise WeightsError(
            f"{folder} holds only pickle files ({', '.join(pickles[:3])}), which can run code when opened and are "
            "refused; convert them to safetensors where you trust them: load with transformers, then "
            "model.save_pretrained(folder)"
        )
    raise WeightsError(
        f"{folder} lacks {', '.join(absent) or 'the files of its index'}; the download or copy is incomplete: repeat it"
    )


def weight_bytes(folder: str | Path) -> int:
    """Bytes of the weights of a checkpoint folder, as stored."""
    return sum(path.stat().st_size for path in weight_files(Path(folder)))


def _no_config(folder: Path) -> str:
    inner = sorted(path.parent.name for path in folder.glob("*/config.json"))
    if inner:
        return f"{folder} has no config.json, but its subfolder {inner[0]} has: give {folder / inner[0]}"
    if (folder / "adapter_config.json").is_file():
        return f"{folder} is a peft adapter, not a checkpoint: load its base model and pass adapter={str(folder)!r}"
    return f"{folder} has no config.json, so it is not a checkpoint; give the folder that holds config.json"
