"""The pyiqa metrics ``qsit``, ``qsit-mini`` and ``qsit-nano``. Importing this module registers them.

    import pyiqa                               # in an installed environment nothing else is needed
    metric = pyiqa.create_metric("qsit-nano")
    metric("photo.jpg")                        # (1, 1) float32 in [0, 1], higher is better
    metric.net.explain("photo.jpg").text

    loss = pyiqa.create_metric("qsit-nano", as_loss=True)
    (1 - loss(restored)).backward()            # reaches the pixels of ``restored``

Registering opens no checkpoint and imports no transformers; creating a metric does. Written against the interfaces of
pyiqa 0.1.15.post2 and later; no code is taken from there.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

try:
    from pyiqa.default_model_configs import DEFAULT_CONFIGS
    from pyiqa.utils.registry import ARCH_REGISTRY
except ModuleNotFoundError as error:
    if error.name != "pyiqa":
        raise
    raise ModuleNotFoundError(
        'qsit_plugin.metric needs pyiqa, which is not installed: pip install "qsit-plugin[pyiqa]"', name="pyiqa"
    ) from None

from .images.reading import MAX_PIXELS, ImageError, as_items, describe

NAMES = ("qsit", "qsit-mini", "qsit-nano")
QUANTIZED = {f"{name}_{kind}": (name, kind) for name in ("qsit", "qsit-mini") for kind in ("8bit", "4bit")}
"""Metric name -> checkpoint and kind; pyiqa spells such names so. They need bitsandbytes when they are created."""


class QSiTMetric(nn.Module):
    """Scores of a Q-SiT checkpoint as pyiqa wants them; ``pyiqa.create_metric(...).net`` is one of these.

    Args:
        model_name: what ``qsit_plugin.load`` takes: a catalogue name, a folder, or a Hub id.
        dtype: ``"auto"`` follows the device as in ``qsit_plugin.load``: moving the metric to another kind of device
            opens the checkpoint again in the type that belongs there. An explicit dtype is never changed.
        pretrained_model_path: a checkpoint folder to read instead of ``model_name``.
        revision, adapter, profile, quantization, max_pixels: as in ``qsit_plugin.load``.
        batch_size: at most so many images in one pass; None leaves it to the engine's token budget.
    """

    def __init__(
        self,
        model_name: str = "qsit-nano",
        dtype: str | torch.dtype = "auto",
        pretrained_model_path: str | None = None,
        revision: str | None = None,
        adapter: str | None = None,
        profile: Any = None,
        quantization: str | None = None,
        batch_size: int | None = None,
        max_pixels: int | None = MAX_PIXELS,
    ):
        super().__init__()
        if batch_size is not None and batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, or None for the engine's choice; got {batch_size}")
        self.batch_size = batch_size
        self._source = pretrained_model_path or model_name
        self._options = {
            "dtype": dtype,
            "revision": revision,
            "adapter": adapter,
            "profile": profile,
            "quantization": quantization,
            "max_pixels": max_pixels,
        }
        # pyiqa moves the metric right after this; its default device spares the second opening.
        self._open("cuda" if torch.cuda.is_available() else "cpu")

    def _open(self, device: str | torch.device) -> None:
        from . import load

        self.core = load(self._source, engine="torch", device=device, **self._options)
        self.weights = self.core.checkpoint.model  # a submodule: .to() and parameters() must see the real weights

    def _apply(self, fn: Any, recurse: bool = True) -> QSiTMetric:
        """What ``.to()``, ``.cuda()`` and ``.half()`` go through."""
        before = self.core.device.type
        if self._options["quantization"]:  # integers cannot be cast, and their scales belong to one device
            target = fn(torch.empty(0, device=self.core.device)).device
            if target != self.core.device:
                self._open(target)
            return self
        super()._apply(fn, recurse)
        if self._options["dtype"] == "auto" and self.core.device.type != before:
            self._open(self.core.device)  # casting instead would not give what load() gives: float16 loses digits
        return self

    @torch.compiler.disable  # threads, files and bytes cannot be traced; around the metric a compiled model goes on
    def forward(
        self, x: Any, *, return_dist: bool = False, return_mos: str | None = None, task_: str = "quality"
    ) -> torch.Tensor:
        """Score a batch.

        Args:
            x: ``(N, 3, H, W)`` or gray ``(N, 1, H, W)``, any float type, in [0, 1], on any device; rounded to 8 bits,
                so that a tensor, a PIL image and a file of the same picture give the same number. Or a list of images
                of any sizes and kinds that ``qsit_plugin`` reads. Where x wants a gradient the pixels are not rounded
                (the score moves by what half a grey level does) and values up to ``gradients.OVERSHOOT`` (0.25) outside
                [0, 1] are clipped; a list may then hold tensors only, of which bytes have no gradient.
            return_dist: the probabilities of the five levels instead, excellent to bad.
            return_mos: name of a scale on which the checkpoint is calibrated, such as "koniq": the MOS that the score
                stands for there. Without gradient.
            task_: pyiqa's name for what is rated; only "quality".

        Returns:
            ``(N, 1)`` values in [0, 1] or on the scale asked for, or ``(N, 5)`` probabilities; float32, on the device
            of the weights.

        Raises:
            ImageError: a value outside [0, 1], or an input that is not an image.
            ContextError: the profile's question and an image are together longer than the context.
            NonFiniteError: the logits overflowed in a dtype that was chosen, or the weights are damaged.
            ValueError: another task, a scale without calibration, or two results at once.
        """
        if task_ != "quality":
            raise ValueError(f'task_={task_!r}: Q-SiT was not trained on any other rating; the only one is "quality"')
        if return_dist and return_mos is not None:
            raise ValueError("return_dist and return_mos exclude each other: a distribution has no single MOS")
        images = [_outside_inference(image) for image in as_items(_outside_inference(x))]
        size = self.batch_size or max(1, len(images))
        parts = [images[start : start + size] for start in range(0, len(images), size)]
        if torch.is_grad_enabled() and any(isinstance(i, torch.Tensor) and i.requires_grad for i in images):
            return self._differentiable(parts, return_dist, return_mos)
        scores = [score for part in parts for score in self.core.score(part)]
        if return_dist:
            rows = [list(score.probabilities.values()) for score in scores]
        else:
            rows = [[score.value if return_mos is None else score.on(return_mos)] for score in scores]
        return torch.tensor(rows, dtype=torch.float32, device=self.core.device).reshape(-1, 5 if return_dist else 1)

    def _differentiable(self, parts: list[list[Any]], return_dist: bool, return_mos: str | None) -> torch.Tensor:
        """The same with a gradient to the images; see gradients.py."""
        from .engines import gradients

        if return_mos is not None:
            raise ValueError("return_mos gives no gradient: optimise the score itself, which rises with the MOS")
        for image in (image for part in parts for image in part):
            if not isinstance(image, torch.Tensor):
                raise ImageError(describe(image), "in a list with tensors that want a gradient; give tensors only")
        pictures = [[image[0] if image.ndim == 4 and len(image) == 1 else image for image in part] for part in parts]
        shares = torch.cat([gradients.level_probabilities(self.core, part) for part in pictures])
        return shares if return_dist else gradients.value(shares, self.core.profile.weights)

    def explain(self, x: Any, question: str | None = None, **options: Any) -> Any:
        """Describe the quality, or answer ``question``; options as for ``qsit_plugin.QSiT.ask``.

        One image (path, bytes, PIL, ``(C, H, W)``) gives an Answer; ``(N, C, H, W)`` or a list gives a list of them.
        """
        if question is not None:
            return self.ask(x, question, **options)
        return self.core.explain(x, **options)

    def ask(self, x: Any, question: str, **options: Any) -> Any:
        """Answer a question about the image; input and result as for ``explain``."""
        return self.core.ask(x, question, **options)


def _outside_inference(x: Any) -> Any:
    """Copy a leaf of inference mode that requires a gradient: its views would silently have none."""
    wanting = isinstance(x, torch.Tensor) and x.requires_grad and x.is_inference()
    return x.clone() if wanting and not torch.is_inference_mode_enabled() else x


def _register() -> None:
    """Once per process, as this module is imported once. A name that pyiqa has itself stays pyiqa's."""
    ARCH_REGISTRY.register(QSiTMetric)
    options: dict[str, dict[str, str]] = {name: {"model_name": name} for name in NAMES}
    options |= {full: {"model_name": name, "quantization": kind} for full, (name, kind) in QUANTIZED.items()}
    for name, chosen in options.items():
        config = {"metric_opts": {"type": QSiTMetric.__name__, **chosen}}
        DEFAULT_CONFIGS.setdefault(name, {**config, "metric_mode": "NR", "lower_better": False, "score_range": "0, 1"})


_register()
