"""pyiqa's own tests, unmodified, on our metric.

They are in pyiqa's sdist only. ``QSIT_PYIQA_SDIST`` names a folder that holds the sdist of the installed version, as
.ci/run downloads it; without it these tests skip:

    pip download pyiqa==VERSION --no-deps --no-binary pyiqa -d FOLDER && QSIT_PYIQA_SDIST=FOLDER pytest tests/metric

Its tests/ and ResultsCalibra/ are copied to a temporary folder, without pyiqa/, which would hide the installed package.
One line is added: the calibration row of qsit-nano for the five images there, computed by transformers' own processor
and ``generate``, never by the metric that it is to check.
"""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch
from PIL import Image

pytest.importorskip("pyiqa")
pytest.importorskip("torchvision", reason="transformers' own processor needs torchvision")

from tests.core.reference import Released  # noqa: E402

CHECKOUT = Path(__file__).resolve().parents[2]
NAME = "qsit-nano"
ON_ANY_MACHINE = {"test_match_official_with_given_cases", "test_forward"}
REFUSED = "test_gradient_backward"
"""It feeds standard normals, about -4 to 4. Such values are no picture: clipped to [0, 1], as they once were, they gave
the score of another one silently. They are an error with a gradient as they are without."""
ON_CUDA = {"test_cpu_gpu_consistency"}


def sdist_of_the_installed_version() -> Path:
    folder, version = os.environ.get("QSIT_PYIQA_SDIST"), importlib.metadata.version("pyiqa")
    if not folder:
        pytest.skip(f"needs pyiqa's sdist: set QSIT_PYIQA_SDIST to a folder that holds pyiqa-{version}.tar.gz")
    if version == "0.1.15.post2" and int(importlib.metadata.version("pandas").split(".")[0]) >= 3:
        pytest.fail(
            "on pandas 3 the calibration test of pyiqa 0.1.15.post2 fails for every metric, pyiqa's own as well: it "
            'writes text into a column of floats. pip install "pandas<3"'
        )
    sdist = Path(folder) / f"pyiqa-{version}.tar.gz"
    assert sdist.is_file(), f"QSIT_PYIQA_SDIST={folder} holds {os.listdir(folder)}, not the installed {sdist.name}"
    return sdist


def copy_peer_tests(sdist: Path, folder: Path) -> Path:
    """The sdist's tests and calibration files, and nothing else of it."""
    with tarfile.open(sdist) as archive:
        wanted = [m for m in archive.getmembers() if m.name.split("/")[1:2] in (["tests"], ["ResultsCalibra"])]
        safe = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}  # Python 3.11.4 and later
        archive.extractall(folder, members=wanted, **safe)
    (root,) = folder.iterdir()
    return root


def released_score(released: Released, profile, path: Path) -> float:
    with Image.open(path) as image:
        logits = released.level_logits(image.convert("RGB"), profile)
    return float(logits.softmax(0) @ torch.tensor(profile.weights))


def add_calibration_row(root: Path, model) -> None:
    """What the authors' procedure gives, in the peer's table of official results, whose columns are the images."""
    table = root / "ResultsCalibra" / "results_official.csv"
    text = table.read_text(encoding="utf-8")
    images = text.splitlines()[0].split(",")[1:]
    released = Released(model.folder)
    scores = [released_score(released, model.profile, table.parent / "dist_dir" / name) for name in images]
    assert max(scores) - min(scores) > 0.1, "images so alike that any row would pass"
    row = ",".join([NAME, *map(repr, scores)])
    table.write_text(text.rstrip("\n") + f"\n{row}\n", encoding="utf-8")


def run_peer_tests(root: Path) -> tuple[dict[str, str], str]:
    """Outcome by test name from pytest's own report, and its output."""
    command = [sys.executable, "-m", "pytest", "-p", "qsit_plugin.metric", "tests/test_metric_general.py", "-k", NAME]
    report = root / "report.xml"
    paths = os.pathsep.join(filter(None, [str(CHECKOUT), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [*command, f"--junitxml={report}"], cwd=root, env=os.environ | {"PYTHONPATH": paths}, capture_output=True,
        text=True, encoding="utf-8",
    )  # fmt: skip
    output = done.stdout + done.stderr
    assert report.is_file(), output
    return {case.attrib["name"]: outcome(case) for case in ElementTree.parse(report).iter("testcase")}, output


def outcome(case: ElementTree.Element) -> str:
    tags = {child.tag for child in case} & {"failure", "error", "skipped"}
    return tags.pop() if tags else "passed"


def test_every_test_of_pyiqa_that_runs_here_passes_but_the_one_whose_input_is_no_picture(nano, tmp_path):
    root = copy_peer_tests(sdist_of_the_installed_version(), tmp_path)
    add_calibration_row(root, nano)
    outcomes, output = run_peer_tests(root)
    expected = {f"{test}[{NAME}]": "passed" for test in ON_ANY_MACHINE}
    expected |= {f"{test}[{NAME}]": "passed" if torch.cuda.is_available() else "skipped" for test in ON_CUDA}
    expected[f"{REFUSED}[{NAME}]"] = "failure"
    assert outcomes == expected, output
    assert "outside [0, 1]" in output
