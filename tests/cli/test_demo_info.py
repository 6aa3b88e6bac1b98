"""``qsit demo`` and ``qsit info``."""

from __future__ import annotations

import json
import re
import shutil
from importlib import resources
from pathlib import Path

import pytest
from PIL import Image

import qsit_plugin
from qsit_plugin.cli.demo import PICTURES
from qsit_plugin.engines.installed import version_problem


def store_golden(folder: Path, offset: float) -> None:
    """Give a checkpoint a golden picture whose stored score is off by ``offset`` from what it computes."""
    Image.linear_gradient("L").save(folder / "golden.png")
    model = qsit_plugin.load(folder)
    logits = model.level_logits(folder / "golden.png")[0].tolist()
    score = model.score(folder / "golden.png").value + offset
    content = {"image": "golden.png", "logits": logits, "score": score}
    (folder / "golden.json").write_text(json.dumps(content), encoding="utf-8")


@pytest.fixture
def own_folder(tiny_folder: Path, tmp_path: Path) -> Path:
    """A copy of the tiny checkpoint that a test may change."""
    return Path(shutil.copytree(tiny_folder, tmp_path / "own"))


def test_the_packaged_pictures_are_a_photo_and_its_twin() -> None:
    for _, file in PICTURES:
        with resources.as_file(resources.files("qsit_plugin") / "demo" / file) as path, Image.open(path) as picture:
            assert picture.size == (512, 512)
            assert path.stat().st_size < 200_000


def test_demo_scores_the_photo_above_its_twin_and_explains_them_differently(qsit, nano) -> None:
    result = qsit("demo")
    assert result.exit_code == 0, result.stderr
    photo, twin, then = result.stdout.strip().split("\n\n")
    values = [float(re.search(r"^ +(\d\.\d\d) \w+$", part, re.MULTILINE)[1]) for part in (photo, twin)]
    assert values[0] > values[1] + 0.2
    reasons = [part.splitlines()[-1].strip() for part in (photo, twin)]
    assert "blur" in reasons[1].lower()
    assert reasons[0] != reasons[1]
    assert "qsit score YOUR_PHOTO" in then


def test_demo_prints_where_its_pictures_lie(qsit, tiny_folder: Path) -> None:
    result = qsit("demo", "--model", tiny_folder)
    assert result.exit_code == 0, result.stderr
    paths = [line.split(": ", 1)[1] for line in result.stdout.splitlines() if line.endswith(".jpg")]
    assert [Path(path).name for path in paths] == [file for _, file in PICTURES]
    assert all(Path(path).is_file() for path in paths)


def test_info_of_the_embedded_model_is_all_good(qsit, nano) -> None:
    result = qsit("info")
    assert result.exit_code == 0, result.stdout + result.stderr
    assert re.search(r"^golden score +pass", result.stdout, re.MULTILINE)
    assert re.search(rf"^fingerprint +{nano.fingerprint}", result.stdout, re.MULTILINE)
    assert result.stdout.splitlines()[-1].endswith("all good")


def test_info_passes_where_the_golden_score_is_met(qsit, own_folder: Path) -> None:
    store_golden(own_folder, 0.0)
    result = qsit("info", "--model", own_folder)
    assert result.exit_code == 0, result.stderr
    assert re.search(r"^golden score +pass", result.stdout, re.MULTILINE)


def test_info_is_status_1_where_the_golden_score_has_drifted(qsit, own_folder: Path) -> None:
    store_golden(own_folder, 0.02)
    result = qsit("info", "--model", own_folder)
    assert result.exit_code == 1
    assert re.search(r"^golden score +drift", result.stdout, re.MULTILINE)
    assert "golden score" in result.stderr


def test_info_names_golden_values_that_cannot_be_read(qsit, own_folder: Path) -> None:
    (own_folder / "golden.json").write_text('{"image": null, "logits": [1, 2], "score": 0.5}', encoding="utf-8")
    result = qsit("info", "--model", own_folder)
    assert result.exit_code == 1
    assert result.stdout.splitlines()[-1].endswith("broken: golden score")


def test_info_names_a_checkpoint_that_fails_its_checks(qsit, own_folder: Path) -> None:
    (own_folder / "model.safetensors").unlink()
    result = qsit("info", "--model", own_folder)
    assert result.exit_code == 1
    assert result.stdout.splitlines()[-1].endswith("broken: model")
    assert "model.safetensors" in result.stderr


def test_info_says_when_the_hook_is_switched_off(qsit, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QSIT_NO_PYIQA_HOOK", "1")
    assert re.search(r"^pyiqa hook +off", qsit("info", "--model", tiny_folder).stdout, re.MULTILINE)


@pytest.mark.parametrize(
    ("name", "version", "problem"),
    [
        ("transformers", "5.0.0", "lm_head"),
        ("transformers", "4.56.2", "transformers>=4.57"),
        ("torch", "2.5.1+cu121", "torch>=2.6"),
        ("transformers", "4.57.0", None),
        ("torch", "2.10.0+cpu", None),
        ("pillow", "9.0", None),
    ],
)
def test_versions_below_the_floor_are_named_with_the_cure(name: str, version: str, problem: str | None) -> None:
    found = version_problem(name, version)
    assert found is None if problem is None else problem in found


def test_version_is_that_of_the_package(qsit) -> None:
    assert qsit("--version").stdout == f"qsit-plugin {qsit_plugin.__version__}\n"
