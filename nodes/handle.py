"""QSIT_MODEL: an opened checkpoint whose memory belongs to ComfyUI.

The only strong reference to a handle is ComfyUI's cache of node outputs. So "Unload Models" moves the weights out of
the GPU, and "Free model and node cache" (or POST /free) lets the memory go altogether.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import comfy.model_management as mm
import torch
from comfy.model_patcher import ModelPatcher
from comfy.utils import ProgressBar
from PIL import Image

from qsit_plugin.checkpoint import open_checkpoint
from qsit_plugin.checkpoint.quantization import KINDS
from qsit_plugin.engines.batches import SCORING, TILE_BUDGET
from qsit_plugin.engines.devices import resolve_dtype
from qsit_plugin.engines.generation import Answer
from qsit_plugin.engines.torch_engine import VISION_CHUNK
from qsit_plugin.images.reading import ImageError
from qsit_plugin.model import QSiT
from qsit_plugin.nodes.devices import DEFAULT, chosen_device
from qsit_plugin.nodes.records import Record
from qsit_plugin.scores import Score
from qsit_plugin.weights.folder import weight_bytes

REMEMBERED = 64
"""Scores kept by picture, for nodes that ComfyUI asks twice in one run (lazy inputs, then the result)."""


class Box(torch.nn.Module):
    """Around the network, because ComfyUI assigns ``model.device``, which transformers' models make read-only."""

    def __init__(self, network: torch.nn.Module):
        super().__init__()
        self.network = network
        self.device: torch.device | None = None


class Handle:
    """A checkpoint that is on its device while it works, and may be evicted in between."""

    def __init__(self, model: QSiT, patcher: ModelPatcher):
        self.model, self.patcher = model, patcher
        self._scores: OrderedDict[bytes, Score] = OrderedDict()

    def __repr__(self) -> str:
        return f"Handle({self.model!r})"

    def loaded(self) -> QSiT:
        """The model, whole on its device. To be called before every piece of work.

        Layers of transformers cannot be cast one by one as ComfyUI's own are, so a part of the model left on another
        device would fail: hence force_full_load.
        """
        mm.load_models_gpu([self.patcher], memory_required=working_bytes(self.model), force_full_load=True)
        return self.model

    def scores(self, pictures: Sequence[Image.Image]) -> list[Score]:
        """A Score for each picture, with progress; stops when the user cancels."""
        found = []
        for score in self._each(pictures, "raise"):
            assert isinstance(score, Score)  # errors="raise": a picture that cannot be used has raised already
            found.append(score)
        return found

    def file_scores(self, paths: Sequence[Path]) -> Iterator[Score | ImageError]:
        """A Score for each file, or an ImageError in its place, as they are read; otherwise as scores."""
        return self._each(paths, "return")

    def _each(self, items: Sequence[Any], errors: str) -> Iterator[Score | ImageError]:
        if not items:
            return
        model, bar = self.loaded(), ProgressBar(len(items))
        groups = [[item] for item in items] if one_by_one(model) else [items]
        for group in groups:
            mm.throw_exception_if_processing_interrupted()
            for result in model.iter_scores(group, errors=errors):
                yield result
                bar.update(1)
                mm.throw_exception_if_processing_interrupted()

    def remembered_scores(self, pictures: Sequence[Image.Image]) -> list[Score]:
        """As scores, but a picture that this handle has just scored is not scored again."""
        keys = [_digest(picture) for picture in pictures]
        known = {key: self._scores[key] for key in keys if key in self._scores}
        new = {key: picture for key, picture in zip(keys, pictures, strict=True) if key not in known}
        if new:
            known.update(zip(new, self.scores(list(new.values())), strict=True))
        for key in keys:
            self._scores[key] = known[key]
            self._scores.move_to_end(key)
        while len(self._scores) > REMEMBERED:
            self._scores.popitem(last=False)
        return [known[key] for key in keys]

    def progress(self, count: int) -> ProgressBar:
        """A bar on the running node, for work of several calls."""
        return ProgressBar(count)

    def answers(
        self, pictures: Sequence[Any], question: str, *, bar: ProgressBar | None = None, **writing: Any
    ) -> list[Answer]:
        """An Answer for each picture or file, written several at a time, with progress; stops when the user cancels."""
        model, found = self.loaded(), []
        bar = bar or ProgressBar(len(pictures))
        for answer in model.iter_answers(pictures, question, cancel=mm.processing_interrupted, **writing):
            mm.throw_exception_if_processing_interrupted()
            assert isinstance(answer, Answer)  # errors="raise"
            found.append(answer)
            bar.update(1)
        return found

    def for_each(self, pictures: Sequence[Image.Image], work: Callable[[QSiT, Image.Image], Any]) -> list[Any]:
        """``work(model, picture)`` for one picture after the other, with progress; stops when the user cancels."""
        model, bar, found = self.loaded(), ProgressBar(len(pictures)), []
        for picture in pictures:
            mm.throw_exception_if_processing_interrupted()
            found.append(work(model, picture))
            mm.throw_exception_if_processing_interrupted()
            bar.update(1)
        return found


def open_handle(folder: Path, name: str, dtype: str, *, device: str = DEFAULT, adapter: Path | None = None) -> Handle:
    """Open a checkpoint folder on ComfyUI's offload device, in ComfyUI's number format where dtype is "auto".

    8bit and 4bit weights are made on their device and stay there: bitsandbytes cannot move them back. ComfyUI makes
    room for them before, and they are freed with the cache of node outputs.

    Raises WeightsError or ProfileError, as qsit_plugin.load does, InputError for a device that is not here.
    """
    place, quantization = chosen_device(device), dtype if dtype in KINDS else None
    offload = mm.text_encoder_offload_device() if place.type != "cpu" else place
    if quantization is not None:
        offload = place
        mm.free_memory(weight_bytes(folder), place)
    number = comfy_dtype(place, weight_bytes(folder)) if dtype in ("auto", *KINDS) else resolve_dtype(dtype)
    checkpoint = open_checkpoint(
        folder, name=name, device=offload, dtype=number, adapter=adapter, quantization=quantization
    )
    # automatic_dtype stays off: after an overflow it would open a second copy that ComfyUI does not know of.
    model = QSiT(checkpoint, adapter=adapter, automatic_dtype=False)
    return Handle(model, ModelPatcher(Box(checkpoint.model), load_device=place, offload_device=offload))


def one_by_one(model: QSiT) -> bool:
    """A CPU gains nothing from batches; one by one, cancelling takes effect after the image at work."""
    return model.device.type == "cpu"


def comfy_dtype(device: torch.device, size: int) -> torch.dtype:
    """ComfyUI's choice for the device. It has none for CPUs but float32: there the package's own rule holds."""
    if device.type == "cpu":
        return resolve_dtype("auto", device, size)
    if mm.should_use_bf16(device):
        return torch.bfloat16
    return torch.float16 if mm.should_use_fp16(device) else torch.float32


def working_bytes(model: QSiT) -> int:
    """An estimate of what a full batch needs beside the weights, from above: the widest layer's activations."""
    text, vision = model.checkpoint.model.config.text_config, model.checkpoint.model.config.vision_config
    patches = (vision.image_size // vision.patch_size) ** 2
    size = 2 if model.dtype in (torch.float16, torch.bfloat16) else 4
    seen = min(VISION_CHUNK, TILE_BUDGET) * patches * (8 * vision.hidden_size + 2 * vision.intermediate_size)
    read = SCORING.tokens * (8 * text.hidden_size + 3 * text.intermediate_size)
    return max(seen, read) * size


def records_of(scores: Sequence[Score]) -> list[Record]:
    """The QSIT_SCORES records of scores."""
    return [score.to_dict() for score in scores]


def _digest(picture: Image.Image) -> bytes:
    content = hashlib.blake2b(picture.tobytes(), digest_size=16)
    content.update(repr(picture.size).encode())
    return content.digest()
