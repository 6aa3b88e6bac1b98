"""The restoration example: the score's gradient must lead to a better photo, not only to a higher score."""

import importlib.util
import sys
from pathlib import Path

import pytest

pytest.importorskip("skimage")

SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "restore.py"


@pytest.fixture(scope="module")
def example():
    monkey = pytest.MonkeyPatch()
    if not SCRIPT.is_file():
        pytest.skip("examples/ is not part of an installed package")
    spec = importlib.util.spec_from_file_location("restore_example", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    monkey.setitem(sys.modules, spec.name, module)  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    monkey.undo()


def test_the_bands_of_an_untouched_photo_add_up_to_it(example):
    clean, _ = example.Case("coffee", "noise").pictures()
    assert example.psnr(example.Bands(clean)().detach(), clean) > 50


def test_a_noisy_photo_comes_nearer_to_its_original(example, nano_torch):
    clean, noisy = example.Case("coffee", "noise").pictures()
    restored = example.restore(nano_torch, noisy, steps=15)
    assert nano_torch.score(restored).value > nano_torch.score(noisy).value + 0.1
    assert example.psnr(restored, clean) > example.psnr(noisy, clean) + 1.0
