"""What is in the wheel, and that the two dependency lists agree."""

import base64
import csv
import hashlib
import io
import re
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

from tests.packaging.environments import CHECKOUT, build_wheel

MAPPED = {"qsit_plugin": "qsit_plugin", **{name: f"qsit_plugin/{name}" for name in ("nodes", "training", "weights")}}
PROJECT = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def contents(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def installed_names(source: Path, pattern: str) -> set[str]:
    """The names under which the files of the source tree must be in the wheel."""
    return {
        f"{target}/{path.relative_to(source / folder).as_posix()}"
        for folder, target in MAPPED.items()
        for path in (source / folder).rglob(pattern)
    }


def test_the_wheel_puts_only_the_package_and_the_start_up_files_into_site_packages(wheel):
    top = {name.split("/")[0] for name in contents(wheel)}
    about = f"qsit_plugin-{PROJECT['version']}.dist-info"
    assert top == {"qsit_plugin", "qsit_plugin.pth", "qsit_pyiqa_hook.py", about}


def test_every_module_of_the_source_tree_is_in_the_wheel_but_the_recipe_of_the_embedded_model(wheel, source):
    left_out = installed_names(source, "*.py") - contents(wheel)
    assert left_out
    assert {name for name in left_out if not name.startswith("qsit_plugin/training/nano/")} == set()


def test_the_demo_photos_are_in_the_wheel(wheel, source):
    photos = installed_names(source, "*.jpg")
    assert photos
    assert photos <= contents(wheel)


def test_example_settings_and_the_table_of_distortions_are_in_the_wheel(wheel, source):
    data = installed_names(source / ".", "configs/*.yaml") | {"qsit_plugin/training/synthetic/distortions.toml"}
    assert len(data) > 5
    assert data <= contents(wheel)


def test_the_page_of_the_report_is_in_the_wheel(wheel):
    assert {f"qsit_plugin/bulk/page/page.{kind}" for kind in ("html", "css", "js")} <= contents(wheel)


def test_type_checkers_see_the_types_of_the_installed_package(wheel):
    assert "qsit_plugin/py.typed" in contents(wheel)


def test_the_lists_of_biq2021s_twins_and_scenes_are_in_the_wheel_and_name_photos_only(wheel, source):
    lists = {f"qsit_plugin/evaluation/data/{name}" for name in ("biq2021_twins.csv", "biq2021_scenes.txt")}
    assert lists <= contents(wheel)
    for name in lists:
        assert not re.search(r"\d\.\d", (source / name).read_text(encoding="utf-8"))  # no rating, no distance


def test_the_embedded_model_is_in_the_wheel_whole_and_within_its_size(wheel, source):
    files = [path for path in (source / "weights" / "nano").glob("*") if path.is_file()]
    if not any(path.suffix == ".safetensors" for path in files):
        pytest.skip("weights/nano is not there yet: training/nano makes it")
    assert {f"qsit_plugin/weights/nano/{path.name}" for path in files} <= contents(wheel)
    assert sum(path.stat().st_size for path in files if path.suffix == ".safetensors") <= 16 * 2**20


def test_the_embedded_model_has_its_onnx_graphs_in_the_wheel(wheel):
    graphs = {f"qsit_plugin/weights/nano/{name}" for name in ("vision.onnx", "decoder.onnx", "onnx.json")}
    assert graphs <= contents(wheel)
    with zipfile.ZipFile(wheel) as archive:
        assert sum(archive.getinfo(name).file_size for name in graphs) < 1e6


def test_the_sdist_has_the_script_the_help_pages_and_the_translations_that_comfyui_serves(sdist, source):
    read_by_comfyui = [path for top in ("web", "locales", "example_workflows") for path in (source / top).rglob("*.*")]
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert source / "web" / "qsit.js" in read_by_comfyui
    assert {path.relative_to(source).as_posix() for path in [*read_by_comfyui, source / "__init__.py"]} <= names


def test_a_wheel_made_from_the_sdist_holds_the_same_files(wheel, sdist, tmp_path):
    (tmp_path / "wheel").mkdir()
    assert contents(build_wheel(sdist, tmp_path / "wheel")) == contents(wheel)


def test_every_file_of_the_wheel_is_recorded_with_its_hash(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (record,) = [name for name in archive.namelist() if name.endswith(".dist-info/RECORD")]
        rows = {row[0]: row[1] for row in csv.reader(io.StringIO(archive.read(record).decode()))}
        for name in archive.namelist():
            digest = base64.urlsafe_b64encode(hashlib.sha256(archive.read(name)).digest()).rstrip(b"=").decode()
            assert rows[name] == ("" if name == record else f"sha256={digest}"), name


def test_the_start_up_line_only_imports_one_module_of_ours(wheel):
    with zipfile.ZipFile(wheel) as archive:
        assert archive.read("qsit_plugin.pth") == b"import qsit_pyiqa_hook\n"


def requirements(lines) -> dict[str, str]:
    """Package name -> version specifier, comments and extras dropped."""
    bare = [line.split("#")[0].strip() for line in lines]
    return {re.split(r"[><=!~\[]", line)[0].strip(): line for line in bare if line}


def test_comfyuis_list_is_part_of_the_complete_one_and_never_names_what_the_host_supplies():
    complete = requirements(PROJECT["dependencies"] + PROJECT["optional-dependencies"]["torch"])
    light = requirements((CHECKOUT / "requirements.txt").read_text(encoding="utf-8").splitlines())
    assert light.items() <= complete.items()
    assert not {"torch", "torchvision", "numpy", "onnxruntime"} & light.keys()


def test_the_core_has_no_engine_and_pyiqa_and_training_bring_torch_alone():
    """onnxruntime and onnxruntime-gpu overwrite each other's files, so nothing but its own extra installs one."""
    extras = PROJECT["optional-dependencies"]
    assert not {"torch", "transformers", "onnxruntime"} & requirements(PROJECT["dependencies"]).keys()
    for name in ("pyiqa", "train"):
        assert "qsit-plugin[torch]" in extras[name]
    with_onnx = [name for name, lines in extras.items() if any("onnx" in line for line in lines)]
    assert with_onnx == ["onnx", "dev"]


def test_no_dependency_is_capped_or_pinned():
    extras = PROJECT["optional-dependencies"]
    for line in [*PROJECT["dependencies"], *(line for lines in extras.values() for line in lines)]:
        assert not re.search(r"<|==|~=", line), line


def test_the_development_extra_leaves_training_out():
    """The tests must also run where transformers 4.57 is installed, which training cannot use."""
    dev = requirements(PROJECT["optional-dependencies"]["dev"])
    assert "peft" not in dev
    assert not any("train" in line for line in dev.values())
