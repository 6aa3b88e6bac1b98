"""What the engine does when memory or numbers run out, and who opens images."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from PIL import Image

import qsit_plugin as qsit
from qsit_plugin.model import QSiT
from tests.tiny import tiny_checkpoint

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_checkpoint(tmp_path_factory.mktemp("tiny"), official=False)


@pytest.fixture(scope="module")
def pictures():
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (60, 80, 3), dtype=np.uint8)) for _ in range(7)]


def refuse_batches_above(model: QSiT, most: int) -> list[int]:
    """Let the head run out of memory above ``most`` images at once; returns the numbers it was asked for."""
    asked = []

    def check(module, args):
        asked.append(len(args[0]))
        if asked[-1] > most:
            raise torch.OutOfMemoryError("out of memory")

    model.engine.hf.lm_head.register_forward_pre_hook(check)
    return asked


def test_out_of_memory_halves_the_batch_and_changes_no_score(folder, pictures):
    model = qsit.load(folder, device="cpu")
    expected = model.level_logits(pictures)
    asked = refuse_batches_above(model, 2)
    assert torch.allclose(model.level_logits(pictures), expected, atol=1e-5)
    assert max(asked) == len(pictures), "the full batch must be tried first"


def test_a_single_image_that_does_not_fit_raises_with_its_size(folder, pictures):
    model = qsit.load(folder, device="cpu")
    refuse_batches_above(model, 0)
    with pytest.raises(torch.OutOfMemoryError, match="a single 80x60 image"):
        model.score(pictures)


def opening_threads(model: QSiT, pictures: list, torch_threads: int) -> int:
    """The most threads that opened images ahead while a list was scored."""
    seen = []

    def watched():
        for picture in pictures:
            yield picture
            seen.append(sum(thread.name.startswith("qsit-images") for thread in threading.enumerate()))

    before = torch.get_num_threads()
    torch.set_num_threads(torch_threads)
    try:
        list(model.iter_scores(watched()))
    finally:
        torch.set_num_threads(before)
    return max(seen)


def test_no_thread_opens_images_beside_a_cpu_that_torch_fills(folder, pictures):
    assert opening_threads(qsit.load(folder, device="cpu"), pictures, CORES) == 0


@pytest.mark.skipif(CORES < 2, reason="needs a second core")
def test_a_core_that_torch_leaves_idle_opens_images_ahead(folder, pictures):
    assert opening_threads(qsit.load(folder, device="cpu"), pictures, CORES - 1) == 1


@pytest.fixture
def overflowing_folder(tmp_path):
    """A checkpoint whose hidden states leave float16's range (65,504)."""
    from safetensors.torch import load_file, save_file

    folder = tiny_checkpoint(tmp_path / "overflow", official=False)
    file = folder / "model.safetensors"
    weights = load_file(file)
    (norm,) = [name for name in weights if name.endswith("language_model.model.norm.weight")]
    weights[norm] = torch.full_like(weights[norm], 6e4)
    save_file(weights, file, metadata={"format": "pt"})
    return folder


def test_float16_that_overflows_is_read_again_in_bfloat16_and_says_so(overflowing_folder, pictures, caplog):
    opened = qsit.load(overflowing_folder, device="cpu", dtype="float16")
    automatic = QSiT(opened.checkpoint, automatic_dtype=True)  # as device="cuda", dtype="auto" would make it
    score = automatic.score(pictures[0])
    assert (score.dtype, score.mode) == ("bfloat16", "bfloat16 after float16 overflowed")
    assert "bfloat16" in caplog.text
    exact = qsit.load(overflowing_folder, device="cpu", dtype="bfloat16").score(pictures[0])
    assert score.value == pytest.approx(exact.value)


def test_an_explicit_float16_that_overflows_raises_instead_of_changing_dtype(overflowing_folder, pictures):
    model = qsit.load(overflowing_folder, device="cpu", dtype="float16")
    with pytest.raises(FloatingPointError, match="not finite in float16.*bfloat16"):
        model.score(pictures[0])


def test_what_every_engine_shares_loads_neither_torch_nor_transformers():
    shared = ["images.reading", "tiling", "limits", "chat", "protocol", "scores", "quality_map", "look", "model"]
    shared += [
        f"engines.{name}" for name in ["base", "batches", "finite", "generation", "level_logits", "prefix_cache"]
    ]
    code = f"import sys, {', '.join('qsit_plugin.' + name for name in shared)}\n"
    code += "print([name for name in ('torch', 'transformers') if name in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
