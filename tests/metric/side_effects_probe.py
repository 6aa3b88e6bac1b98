"""Run as a script in a separate process by test_side_effects.py; prints JSON. ``use PHOTO`` or ``soil FOLDER``.

It uses nothing of the ``tests`` package: pyiqa's wheel brings another one of that name.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import random
import sys
import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pyiqa
import torch
import transformers
from PIL import ImageFile
from process_state import changes, snapshot  # beside this file
from transformers import (
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    LlavaOnevisionForConditionalGeneration,
    Qwen2Model,
    SiglipVisionModel,
)

PARTS = (AutoTokenizer, LlavaOnevisionForConditionalGeneration, Qwen2Model, SiglipVisionModel)
"""Loaded before the first snapshot, so that it covers the classes that our metric is made of."""

OFFLINE_METRICS = ("entropy", "piqe", "psnr", "ssim", "ms_ssim", "gmsd", "vif", "nlpd")
"""pyiqa's own that need no download. Not cw_ssim and others whose class is not found by its file's name: pyiqa then
imports all that it has, and some of that replaces methods of transformers' Llama."""


def pictures() -> torch.Tensor:
    """(2, 3, 192, 224) in [0, 1]."""
    return torch.from_numpy(np.random.default_rng(0).random((2, 3, 192, 224), dtype=np.float32))


def numbers(metrics: dict[str, Any]) -> dict[str, list[float]]:
    """What other people's models give: pyiqa's metrics and an ordinary Llama of random weights."""
    images = pictures()
    results = {name: metric(images, images.flip(0)).flatten().tolist() for name, metric in metrics.items()}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4
        )
        llama = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        results["an ordinary Llama"] = llama(torch.arange(16)[None]).logits.flatten().tolist()
    return results


class Use:
    """What a user does with the metric, in this order."""

    def __init__(self, photo: Path):
        self.photo = str(photo)

    def register(self) -> None:
        import qsit_plugin.metric  # noqa: F401

    def create(self) -> None:
        self.metric = pyiqa.create_metric("qsit-nano", device="cpu")

    def score(self) -> None:
        self.metric(pictures())
        self.metric(pictures(), return_dist=True)
        self.metric(self.photo)

    def explain(self) -> None:
        self.metric.net.explain(self.photo, max_new_tokens=8)
        self.metric.net.ask(self.photo, "Is it blurry?", max_new_tokens=8)

    def optimise(self) -> None:
        images = pictures().requires_grad_()
        (1 - pyiqa.create_metric("qsit-nano", device="cpu", as_loss=True)(images)).backward()
        assert images.grad is not None and images.grad.abs().sum() > 0


def use(photo: Path) -> dict[str, Any]:
    """Changes by step, and the numbers before and after everything."""
    metrics = {name: pyiqa.create_metric(name, device="cpu") for name in OFFLINE_METRICS}
    report: dict[str, Any] = {"before": numbers(metrics), "changes": {}, "errors": {}}
    user = Use(photo)
    for step in ("register", "create", "score", "explain", "optimise"):
        before = snapshot()
        try:
            getattr(user, step)()
        except Exception as error:  # reported, and the test of that step fails with it
            report["errors"][step] = repr(error)
        report["changes"][step] = changes(before, snapshot())
    created_anew = {name: pyiqa.create_metric(name, device="cpu") for name in OFFLINE_METRICS}
    return report | {"after": numbers(metrics), "created anew": numbers(created_anew)}


def soil(folder: Path) -> dict[str, Any]:
    """What the comparison finds after each thing that is watched was changed on purpose: this proves the watching.

    Nothing is written into site-packages; `test_side_effects.py` checks the listing of files on a separate folder.
    """
    llama = transformers.models.llama.modeling_llama.LlamaModel
    configuration = pyiqa.default_model_configs.DEFAULT_CONFIGS["psnr"]
    inference = torch.inference_mode()  # kept: it ends when nothing refers to it
    actions = {
        "torch: interop threads": lambda: torch.set_num_interop_threads(
            3
        ),  # allowed before the first parallel work only
        "transformers' attention functions": lambda: transformers.AttentionInterface.register("mine", print),
        "transformers' logging": lambda: transformers.logging.set_verbosity_debug(),
        "pyiqa's classes and functions": lambda: setattr(pyiqa, "create_metric", print),
        "pyiqa's configurations": lambda: configuration.update(lower_better=True),
        "random state of torch": lambda: torch.rand(1),
        "random state of numpy": lambda: np.random.rand(),
        "random state of random": lambda: random.random(),
        "sys.path": lambda: sys.path.append(str(folder)),
        "sys.meta_path": lambda: sys.meta_path.append(type(sys.meta_path[-1])),
        "sys.excepthook": lambda: setattr(sys, "excepthook", print),
        "environment variables": lambda: os.environ.update(QSIT_TEST="1"),
        "working directory": lambda: os.chdir(folder),
        "garbage collector": lambda: gc.disable(),
        "threads": lambda: threading.Thread(target=threading.Event().wait, daemon=True).start(),
        "warnings filters": lambda: warnings.simplefilter("ignore"),
        "logging": lambda: logging.getLogger("pyiqa").setLevel(logging.CRITICAL),
        "Pillow": lambda: setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", not ImageFile.LOAD_TRUNCATED_IMAGES),
        "torch: threads": lambda: torch.set_num_threads(torch.get_num_threads() + 1),
        "torch: gradients": lambda: torch.set_grad_enabled(False),
        "torch: inference mode": inference.__enter__,
        "torch: anomaly mode": lambda: torch.autograd.set_detect_anomaly(True),
        "torch: autocast": lambda: torch.set_autocast_enabled("cpu", True),
        "torch: deterministic": lambda: torch.use_deterministic_algorithms(True, warn_only=True),
        "torch: cudnn": lambda: setattr(torch.backends.cudnn, "benchmark", True),
        "torch: matmul": lambda: torch.set_float32_matmul_precision("medium"),
        "torch: mkldnn": lambda: torch.backends.mkldnn.set_flags(False),
        "torch: attention": lambda: torch.backends.cuda.enable_math_sdp(False),
        "torch: module hooks": lambda: torch.nn.modules.module.register_module_forward_hook(print),
        "torch: default device": lambda: torch.set_default_device("meta"),
        "torch: default dtype": lambda: torch.set_default_dtype(torch.float64),
        "transformers' classes and functions": lambda: setattr(llama, "forward", lambda self: None),
    }
    found = {}
    for name, action in actions.items():
        before = snapshot()
        action()
        found[name] = sorted(changes(before, snapshot()))
    return {"found": found, "watched": sorted(snapshot())}


if __name__ == "__main__":
    mode, where = sys.argv[1:]
    print(json.dumps({"use": use, "soil": soil}[mode](Path(where))))
