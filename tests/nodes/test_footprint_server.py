"""What the pack costs a ComfyUI that it is put into: memory, files and packages."""

import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest

from tests.nodes import live
from tests.nodes.graphs import shipped, shown_by
from tests.nodes.hosts import CHECKOUT

pytestmark = pytest.mark.skipif(not live.COMFYUI, reason="needs COMFYUI_PATH, the folder of a ComfyUI checkout")
NAMES = sorted(path.stem for path in (CHECKOUT / "example_workflows" / "api").glob("*.json"))
ITS_FOLDERS = ("input", "output", "temp", "user")


@pytest.fixture
def base(tmp_path):
    live.put_pack(tmp_path)
    live.put_example(tmp_path)
    return tmp_path


def test_ten_runs_of_every_kind_of_node_are_flat_in_memory(base):
    """With the cache that holds one run only; the default of 0.33 holds older ones until memory gets scarce."""
    held = []
    with live.started(base, "--cache-classic") as server:
        for run in range(10):
            for name in ("again_until_good", "quality_map", "explain_failures", "overlay_and_contact_sheet"):
                prompt = shipped(name)
                prompt["99"] = {"class_type": "QSiT_DemoPhoto", "inputs": {"picture": "blurred by seed", "seed": run}}
                for about in prompt.values():
                    if about["inputs"].get("images") == ["2", 0]:
                        about["inputs"]["images"] = ["99", 0]  # another picture in each run, so nothing is cached
                if name == "again_until_good":
                    prompt["2"]["inputs"]["seed"] = 1000 * run
                    prompt["5"]["inputs"] |= {"threshold": 1.0, "max_tries": 5}
                shown_by(server.run(prompt))
            held.append(server.resident() / 2**20)
    assert max(held[3:]) - held[2] < 40, held


def test_the_workflows_write_nothing_outside_of_comfyuis_folders(base):
    elsewhere = base / "elsewhere"
    places = {name: str(elsewhere / name) for name in ("HOME", "TMPDIR", "XDG_CACHE_HOME", "QSIT_CACHE", "HF_HOME")}
    for place in places.values():
        Path(place).mkdir(parents=True)
    with live.started(base, PYTHONDONTWRITEBYTECODE="1", **places) as server:
        before = files(base)
        for name in NAMES:
            prompt = shipped(name)
            if "CheckpointLoaderSimple" not in {about["class_type"] for about in prompt.values()}:
                shown_by(server.run(prompt))
        changed = files(base) ^ before
    allowed = [base / name for name in (*ITS_FOLDERS, "log.txt")]
    assert {str(path) for path, *_ in changed if not any(path.is_relative_to(place) for place in allowed)} == set()
    assert any(path.is_relative_to(base / "output") for path, *_ in changed)


def files(base):
    """Every file below the base directory and in ComfyUI itself, with its state."""
    found = [path for root in (base, Path(live.COMFYUI)) for path in root.rglob("*") if path.is_file()]
    return {(path, path.stat().st_mtime_ns, path.stat().st_size) for path in found if "__pycache__" not in path.parts}


def test_installing_what_comfyui_satisfies_changes_no_package():
    requirement = pytest.importorskip("packaging.requirements").Requirement
    lines = (CHECKOUT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    wanted = [requirement(line) for line in lines if line and not line.startswith("#")]
    assert not {"torch", "torchvision", "numpy"} & {about.name for about in wanted}
    assert all(part.operator in (">=", "!=") for about in wanted for part in about.specifier)
    for about in wanted:
        if importlib.metadata.version(about.name) not in about.specifier:
            pytest.skip(f"this ComfyUI has no {about}")
    before = pip("freeze")
    pip("install", "--no-index", "-r", str(CHECKOUT / "requirements.txt"))  # could not fetch anything
    assert pip("freeze") == before


def pip(*words):
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
