"""How many threads open images beside the engine."""

from __future__ import annotations

import threading

import numpy as np
import pytest

import qsit_plugin as qsit
from qsit_plugin.engines import batches
from tests.tiny import tiny_checkpoint

PICTURE = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return qsit.load(tiny_checkpoint(tmp_path_factory.mktemp("tiny"), official=False), device="cpu")


def openers(model, monkeypatch, *, place: str, cores: int, threads: int, images: int = 20) -> set[int]:
    """The threads that opened the images of a list on a machine with so many cores, of which the engine computes on
    ``threads``, or on a device of another kind."""
    seen: set[int] = set()
    original = batches.open_item

    def noted(*arguments):
        seen.add(threading.get_ident())
        gate.wait(0.05)  # long enough for every thread of the pool to take an image
        return original(*arguments)

    gate = threading.Event()
    monkeypatch.setattr(batches, "usable_cores", lambda: cores)
    monkeypatch.setattr(batches, "open_item", noted)
    monkeypatch.setattr(type(model.engine), "place", place)
    monkeypatch.setattr(type(model.engine), "threads", threads)
    assert len(model.score([PICTURE] * images)) == images
    return seen


@pytest.mark.parametrize(("cores", "expected"), [(1, 2), (4, 4), (64, 16)])
def test_beside_a_gpu_a_thread_a_core_opens_images(model, monkeypatch, cores, expected):
    found = openers(model, monkeypatch, place="cuda", cores=cores, threads=cores)
    assert len(found) == expected and threading.get_ident() not in found


def test_a_cpu_that_computes_on_every_core_opens_images_in_line(model, monkeypatch):
    assert openers(model, monkeypatch, place="cpu", cores=4, threads=4) == {threading.get_ident()}


def test_cores_that_the_engine_leaves_idle_open_images(model, monkeypatch):
    found = openers(model, monkeypatch, place="cpu", cores=16, threads=1)
    assert len(found) == 2 and threading.get_ident() not in found
