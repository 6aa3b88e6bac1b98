"""Normal and editable installs, uninstalling, and a bare clone as ComfyUI loads it."""

import shutil
import tomllib

import pytest

from tests.packaging.environments import CHECKOUT, Environment, copy_checkout

START_UP_FILES = {"qsit_plugin.pth", "qsit_pyiqa_hook.py"}
VERSION = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
PRINT_VERSION = "import qsit_plugin\nprint(qsit_plugin.__version__)"

WHERE = """
import importlib.util, qsit_plugin.nodes, qsit_plugin.training, qsit_plugin.weights
print(qsit_plugin.__file__)
print([name for name in ("nodes", "training", "weights") if importlib.util.find_spec(name)])
"""


def test_uninstalling_leaves_nothing_behind(wheel, tmp_path):
    environment = Environment.create(tmp_path / "env", linked=False)
    before = environment.names()
    environment.install(wheel)
    assert environment.names() > START_UP_FILES
    environment.uninstall()
    assert environment.names() == before


def test_an_installed_package_brings_its_parts_under_its_own_name_only(installed):
    done = installed.execute(WHERE)
    assert done.stderr == ""
    file, bare = done.stdout.splitlines()
    assert file == str(installed.site_packages / "qsit_plugin" / "__init__.py")
    assert bare == "[]"


def test_an_editable_install_uses_the_checkout_and_goes_away_whole(tmp_path):
    source = copy_checkout(tmp_path / "clone")
    environment = Environment.create(tmp_path / "env", linked=True)
    before = environment.names()
    environment.install("--editable", source)
    assert environment.names() > START_UP_FILES
    done = environment.execute(WHERE)
    assert done.stderr == ""
    file, bare = done.stdout.splitlines()
    assert file == str(source / "qsit_plugin" / "__init__.py")
    assert bare == "[]"
    environment.uninstall()
    assert environment.names() == before


def test_python_starts_silently_when_an_editable_checkout_is_gone(tmp_path):
    source = copy_checkout(tmp_path / "clone")
    environment = Environment.create(tmp_path / "env", linked=True).install("--editable", source)
    shutil.rmtree(source)
    done = environment.execute("import json")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_an_installed_package_knows_the_version_that_the_project_file_states(installed):
    done = installed.execute(PRINT_VERSION)
    assert (done.stdout.strip(), done.stderr) == (VERSION, "")


def test_a_clone_gives_the_version_of_its_own_project_file_whatever_is_installed(installed, tmp_path):
    clone = copy_clone(tmp_path / "clone")
    project = clone / "pyproject.toml"
    text = project.read_text(encoding="utf-8")
    project.write_text(text.replace(f'version = "{VERSION}"', 'version = "9.8.7"'), encoding="utf-8")
    done = installed.execute(PRINT_VERSION, PYTHONPATH=str(clone))
    assert (done.stdout.strip(), done.stderr) == ("9.8.7", "")


def copy_clone(folder):
    """What ComfyUI's entry point needs of a clone."""
    folder.mkdir(parents=True)
    for part in ("__init__.py", "pyproject.toml"):
        shutil.copy(CHECKOUT / part, folder / part)
    for part in ("qsit_plugin", "nodes", "training"):
        shutil.copytree(CHECKOUT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


@pytest.mark.parametrize("name", ["qsit_plugin", "comfyui-q-sit.v1"])
def test_a_bare_clone_has_comfyuis_entry_point_without_touching_the_import_path(name, tmp_path):
    """The loading of ComfyUI's custom nodes, in short: by file, under a module name made of the folder's path."""
    clone = copy_clone(tmp_path / "custom_nodes" / name)
    code = f"""
import importlib.util, sys
before = list(sys.path)
key = {str(clone)!r}.replace(".", "_x_")
spec = importlib.util.spec_from_file_location(key, {str(clone / "__init__.py")!r})
module = sys.modules[key] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
import qsit_plugin, qsit_plugin.training
print(sys.path == before, "nodes" in sys.modules, hasattr(module, "NODE_CLASS_MAPPINGS"))
print(module.comfy_entrypoint.__name__, qsit_plugin.__file__)
"""
    done = Environment.create(tmp_path / "env", linked=False).execute(code)
    assert done.stderr == ""
    assert done.stdout.strip() == f"True False False\ncomfy_entrypoint {clone / 'qsit_plugin' / '__init__.py'}"
