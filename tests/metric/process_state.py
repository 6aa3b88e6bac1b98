"""What a metric could change of a process behind its user's back: take a snapshot before and after, and compare."""

from __future__ import annotations

import gc
import logging
import os
import random
import sys
import threading
import warnings
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageFile

MAY_GROW = ("transformers' classes and functions", "pyiqa's classes and functions", "pyiqa's configurations")


def snapshot() -> dict[str, Any]:
    """Name of what is watched -> its state; equal states compare equal, functions and classes by identity."""
    import pyiqa
    import transformers
    from pyiqa.default_model_configs import DEFAULT_CONFIGS
    from transformers.utils import logging as transformers_logging

    return {
        "transformers' classes and functions": code_of("transformers"),
        "transformers' attention functions": attention_functions(),
        "transformers' logging": (transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()),
        "pyiqa's classes and functions": code_of("pyiqa"),
        "pyiqa's configurations": {name: repr(DEFAULT_CONFIGS[name]) for name in sorted(DEFAULT_CONFIGS)},
        "files of pyiqa": files_of(Path(pyiqa.__file__).parent),
        "files of transformers": files_of(Path(transformers.__file__).parent),
        "random state of torch": torch.get_rng_state().tolist(),
        "random state of numpy": repr(np.random.get_state(legacy=False)),
        "random state of random": random.getstate(),
        "sys.path": list(sys.path),
        "sys.meta_path": list(sys.meta_path),
        "sys.excepthook": sys.excepthook,
        "environment variables": dict(os.environ),
        "working directory": os.getcwd(),
        "garbage collector": (gc.isenabled(), gc.get_threshold(), gc.get_freeze_count() > 0),
        "threads": sorted(thread.name for thread in threading.enumerate()),
        "warnings filters": list(warnings.filters),
        "logging": logging_state(),
        "Pillow": (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, ImageFile.MAXBLOCK),
        **{f"torch: {name}": value for name, value in torch_settings().items()},
    }


def changes(before: dict[str, Any], after: dict[str, Any]) -> dict[str, str]:
    """The differences, as text. A module may have got new names, as importing lazily gives it; classes may not."""
    found = {}
    for name, old in before.items():
        new = {key: after[name].get(key) for key in old} if name in MAY_GROW else after[name]
        if old != new:
            found[name] = difference(old, new)
    return found


def difference(old: Any, new: Any) -> str:
    if isinstance(old, dict):
        keys = [key for key in old.keys() | new.keys() if old.get(key) != new.get(key)]
        return "; ".join(f"{key}: {old.get(key)!r:.80} -> {new.get(key)!r:.80}" for key in sorted(keys, key=str)[:5])
    return f"{old!r:.200} -> {new!r:.200}"


def code_of(package: str) -> dict[str, Any]:
    """Every function and class in the package's loaded modules, and of each class the methods it defines itself."""
    found: dict[str, Any] = {}
    for name, module in sorted(sys.modules.items()):
        if not isinstance(module, ModuleType) or name.split(".")[0] != package:
            continue
        for attribute, value in list(vars(module).items()):
            if isinstance(value, FunctionType | type):
                found[f"{name}.{attribute}"] = value
            if isinstance(value, type) and value.__module__ == name:
                found[f"{name}.{attribute}'s methods"] = {k: item for k, item in vars(value).items() if is_code(item)}
    return found


def is_code(value: Any) -> bool:
    return callable(value) or isinstance(value, property | classmethod | staticmethod)


def attention_functions() -> dict[str, Any]:
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    tables = {"attention": ALL_ATTENTION_FUNCTIONS, "mask": ALL_MASK_ATTENTION_FUNCTIONS}
    return {f"{table}.{name}": tables[table][name] for table in tables for name in sorted(tables[table])}


def files_of(folder: Path) -> dict[str, tuple[int, int]]:
    """Path -> size and time of change, byte code aside: importing writes that."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc")
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in files}


def logging_state() -> dict[str, Any]:
    """Level and handlers of the root and of the libraries' loggers."""
    names = ["", "pyiqa", "transformers", "huggingface_hub", "torch", "PIL", "py.warnings"]
    loggers = {name: logging.getLogger(name) for name in names}
    return {name: (log.level, log.disabled, log.propagate, list(log.handlers)) for name, log in loggers.items()}


def torch_settings() -> dict[str, Any]:
    cudnn, matmul, cuda = torch.backends.cudnn, torch.backends.cuda.matmul, torch.backends.cuda
    return {
        "threads": torch.get_num_threads(),
        "interop threads": torch.get_num_interop_threads(),
        "default dtype": torch.get_default_dtype(),
        "default device": str(torch.get_default_device()),
        "gradients": torch.is_grad_enabled(),
        "inference mode": torch.is_inference_mode_enabled(),
        "anomaly mode": torch.is_anomaly_enabled(),
        "autocast": torch.is_autocast_enabled("cpu"),
        "deterministic": torch.get_deterministic_debug_mode(),
        "cudnn": (cudnn.enabled, cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32),
        "matmul": (torch.get_float32_matmul_precision(), matmul.allow_tf32),
        "mkldnn": torch.backends.mkldnn.enabled,
        "attention": (cuda.flash_sdp_enabled(), cuda.mem_efficient_sdp_enabled(), cuda.math_sdp_enabled()),
        "module hooks": len(torch.nn.modules.module._global_forward_hooks),
    }
