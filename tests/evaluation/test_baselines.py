"""Metrics of pyiqa beside ours: direction, what fails, and what is refused."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("pyiqa")

from qsit_plugin.evaluation.baselines import MetricError, check_names, open_metric  # noqa: E402


@pytest.fixture(scope="module")
def piqe():
    return open_metric("piqe", "cpu")


def test_a_baseline_gives_the_number_that_pyiqa_gives_and_knows_its_direction(piqe, tmp_path: Path) -> None:
    import pyiqa

    pixels = np.random.default_rng(0).integers(0, 256, (128, 128, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    (outcome,) = piqe.outcomes([tmp_path / "a.png"])
    assert outcome == {
        "score": pytest.approx(float(pyiqa.create_metric("piqe", device="cpu")(str(tmp_path / "a.png"))))
    }
    assert piqe.lower_is_better


def test_an_image_that_a_baseline_cannot_take_is_an_error_and_the_next_is_scored(piqe, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no picture")
    pixels = np.random.default_rng(0).integers(0, 256, (128, 128, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "good.png")
    broken, good = piqe.outcomes([tmp_path / "broken.png", tmp_path / "good.png"])
    assert broken["error"].startswith("UnidentifiedImageError: ")
    assert "score" in good


def test_a_full_reference_metric_and_an_unknown_one_are_refused() -> None:
    with pytest.raises(MetricError, match="ssim needs a reference image"):
        check_names(["piqe", "ssim"])
    with pytest.raises(MetricError, match="no metric 'niqee'"):
        check_names(["niqee"])


def test_a_metric_whose_weights_are_out_of_reach_is_refused_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pyiqa.utils.download_util.DEFAULT_CACHE_DIR", str(tmp_path))
    with pytest.raises(MetricError, match="brisque cannot be created: "):
        open_metric("brisque", "cpu")
