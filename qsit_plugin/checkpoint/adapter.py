"""Puts a peft adapter on a model, or into it; peft is imported only when an adapter is given."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from qsit_plugin.weights.adapter_limits import CONFIG, WEIGHTS, adapted_modules, check_adapter_config
from qsit_plugin.weights.errors import WeightsError, first_line, refusing
from qsit_plugin.weights.json_file import check_json_files

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import LlavaOnevisionForConditionalGeneration


def merge_adapter(
    model: LlavaOnevisionForConditionalGeneration, adapter: str | os.PathLike[str]
) -> LlavaOnevisionForConditionalGeneration:
    """The model with a peft adapter merged into its weights; raises as ``attach_adapter``."""
    with _fitting(Path(adapter), "merged"):
        return attach_adapter(model, adapter).merge_and_unload(safe_merge=True)


def attach_adapter(model: LlavaOnevisionForConditionalGeneration, adapter: str | os.PathLike[str]) -> PeftModel:
    """The model under a peft adapter, with its weights trainable; the model's own are frozen.

    Only safetensors, and every tensor must find its place: else WeightsError.
    """
    folder = Path(adapter)
    weights = folder / WEIGHTS
    if not (folder / "adapter_config.json").is_file() or not weights.is_file():
        raise WeightsError(
            f"{folder} is not a peft adapter in safetensors: it needs adapter_config.json and {weights.name} (pickled "
            "adapters are refused; save it again with peft's save_pretrained)"
        )
    try:
        peft = import_peft()
    except ImportError:
        raise WeightsError("an adapter needs the peft package; run: pip install peft") from None
    check_json_files(folder)
    with _fitting(folder, "opened"):
        stored = _tensors(weights)
        check_adapter_config(folder, {name: tuple(tensor.shape) for name, tensor in stored.items()})
        with wrapping(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Found missing adapter keys")  # they are looked for below
            config = _config(peft, folder, model, stored)
            wrapped = peft.PeftModel.from_pretrained(
                model, str(folder), config=config, is_trainable=True, local_files_only=True
            )
        # without "False" peft asks the Hub for the base's config.json, to see whether the vocabulary has grown
        known = set(peft.get_peft_model_state_dict(wrapped, save_embedding_layers=False))
        state = {_here(name, known): tensor for name, tensor in stored.items()}
        if state.keys() != known:
            differing = known ^ state.keys()
            raise ValueError(f"{len(differing)} of its tensors do not match, first: {min(differing)}")
        if state.keys() != stored.keys():
            peft.set_peft_model_state_dict(wrapped, state)
        return wrapped


@contextmanager
def _fitting(folder: Path, done: str) -> Iterator[None]:
    """What peft raises where an adapter is not of this model, as a WeightsError."""
    with refusing(f"adapter {folder} cannot be {done}"):
        try:
            yield
        except (ValueError, RuntimeError, KeyError, SafetensorError) as error:
            if isinstance(error, (WeightsError, torch.OutOfMemoryError)):
                raise
            raise WeightsError(
                f"adapter {folder} does not fit this checkpoint ({first_line(error)}); use the base model that its "
                "adapter_config.json names"
            ) from error


def _tensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} is broken ({first_line(error)}); copy or download the adapter again") from error
    faults = [name for name, tensor in tensors.items() if not tensor.is_floating_point() or not tensor.isfinite().all()]
    if faults:
        raise WeightsError(f"{path} is damaged: {faults[0]} holds no finite floats; copy or download the adapter again")
    return tensors


def _config(peft: ModuleType, folder: Path, model: Any, stored: Iterable[str]) -> Any:
    """The adapter's settings; a regular expression for its modules gives way to the names that its tensors carry."""
    config = peft.PeftConfig.from_pretrained(str(folder))
    if isinstance(config.target_modules, str):
        modules = {name for name, _ in model.named_modules()}
        config.target_modules = {_here(name, modules) for name in adapted_modules(stored)}
        config.exclude_modules = config.layers_to_transform = config.layers_pattern = None  # expressions, and done with
    for key in ("exclude_modules", "layers_pattern"):
        if getattr(config, key, None):
            raise WeightsError(f"{folder / CONFIG}: {key} is not read; list the modules in target_modules instead")
    return config


def _here(name: str, known: set[str]) -> str:
    """The name in this generation of transformers of a tensor that the other may have written: 4.x wraps the vision
    tower in one more module."""
    inside, outside = "vision_tower.vision_model.", "vision_tower."
    for other in (name.replace(inside, outside), name.replace(outside, inside)):
        if name not in known and other in known:
            return other
    return name


def import_peft() -> ModuleType:
    """The peft package. It imports bitsandbytes where that is installed, which on some CPUs advises to install another
    package for 4-bit weights: nothing that an adapter needs. Raises ImportError."""
    logger = logging.getLogger("bitsandbytes.backends.cpu.ops")
    logger.addFilter(_is_no_advice)
    try:
        import peft
    finally:
        logger.removeFilter(_is_no_advice)
    return peft


def _is_no_advice(record: logging.LogRecord) -> bool:
    return "gemm_4bit_forward" not in record.msg


@contextmanager
def wrapping() -> Iterator[None]:
    """While peft wraps a model: it asks for a property whose name transformers has deprecated, and no user can help."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)
        yield
