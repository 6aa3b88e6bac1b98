"""The metrics are there after a plain ``import pyiqa``; the hook behind it stays out of everybody's way."""

import importlib.util
import shutil

import pytest

from tests.packaging.environments import CHECKOUT, Environment

needs_pyiqa = pytest.mark.skipif(importlib.util.find_spec("pyiqa") is None, reason="pyiqa is not installed")

NAMES = "['qsit', 'qsit-mini', 'qsit-mini_4bit', 'qsit-mini_8bit', 'qsit-nano', 'qsit_4bit', 'qsit_8bit']"
PRINT_NAMES = "\nimport pyiqa\nprint([name for name in pyiqa.list_models() if 'qsit' in name])\n"


@needs_pyiqa
def test_a_plain_import_of_pyiqa_knows_the_metrics_and_loads_no_transformers(installed):
    done = installed.execute(
        PRINT_NAMES + "import sys\nprint('transformers' in sys.modules)\nprint(type(pyiqa.__loader__).__name__)\n"
        "print([finder for finder in sys.meta_path if 'Pyiqa' in type(finder).__name__])"
    )
    assert done.stdout.splitlines() == [NAMES, "False", "SourceFileLoader", "[]"], done.stderr


@needs_pyiqa
def test_the_environment_variable_switches_the_hook_off(installed):
    done = installed.execute(PRINT_NAMES, QSIT_NO_PYIQA_HOOK="1")
    assert done.stdout.splitlines() == ["[]"], done.stderr


@needs_pyiqa
def test_register_still_works_when_the_hook_is_switched_off(installed):
    done = installed.execute(
        "import qsit_plugin\nqsit_plugin.register()\nqsit_plugin.register()" + PRINT_NAMES, QSIT_NO_PYIQA_HOOK="1"
    )
    assert done.stdout.splitlines() == [NAMES], done.stderr


@needs_pyiqa
def test_looking_pyiqa_up_does_not_disarm_the_hook(installed):
    """transformers and others probe for packages with find_spec; a hook that fires on it once lost its only chance."""
    lookup = "import importlib.util\nassert importlib.util.find_spec('pyiqa').origin.endswith('__init__.py')"
    done = installed.execute(lookup + PRINT_NAMES)
    assert done.stdout.splitlines() == [NAMES], done.stderr


@needs_pyiqa
@pytest.mark.parametrize("order", ["import qsit_plugin", "import pyiqa, qsit_plugin", "import qsit_plugin.metric"])
def test_without_an_installation_importing_our_package_makes_the_metrics_known(order, tmp_path):
    environment = Environment.create(tmp_path / "env", linked=True)
    done = environment.execute(order + PRINT_NAMES, PYTHONPATH=str(CHECKOUT))
    assert done.stdout.splitlines() == [NAMES], done.stderr


def test_starting_python_arms_one_hook_and_loads_nothing_heavy(installed):
    done = installed.execute(
        "import sys\nprint([m for m in ('torch', 'transformers', 'pyiqa', 'qsit_plugin') if m in sys.modules])\n"
        "import qsit_plugin\nprint(sum('Pyiqa' in type(finder).__name__ for finder in sys.meta_path))"
    )
    assert done.stdout.splitlines() == ["[]", "1"], done.stderr


def test_importing_the_package_loads_nothing_heavy_and_does_not_look_its_version_up(tmp_path):
    heavy = ("torch", "transformers", "numpy", "PIL", "tomllib", "importlib.metadata")
    code = f"import sys, qsit_plugin\nprint([m for m in {heavy} if m in sys.modules])"
    environment = Environment.create(tmp_path / "env", linked=True)
    assert environment.execute(code, PYTHONPATH=str(CHECKOUT)).stdout.splitlines() == ["[]"]


def test_without_pyiqa_the_hook_is_silent(wheel, tmp_path):
    environment = Environment.create(tmp_path / "env", linked=False).install(wheel)
    code = "try:\n    import pyiqa\nexcept ModuleNotFoundError as error:\n    print(error.name)"
    done = environment.execute(code)
    assert (done.stdout.strip(), done.stderr) == ("pyiqa", "")


def test_the_metric_module_says_how_to_get_pyiqa_where_it_is_missing(tmp_path):
    hidden = """
import sys
class Hide:
    def find_spec(self, name, path=None, target=None):
        if name == "pyiqa":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Hide())
"""
    environment = Environment.create(tmp_path / "env", linked=True)
    done = environment.execute(hidden + "import qsit_plugin.metric", PYTHONPATH=str(CHECKOUT), QSIT_NO_PYIQA_HOOK="1")
    assert done.stderr.splitlines()[-1].endswith('pip install "qsit-plugin[pyiqa]"'), done.stderr


NO_TRANSFORMERS = "import sys\nsys.modules['transformers'] = sys.modules['onnxruntime'] = None\n"
NO_ENGINE = NO_TRANSFORMERS + "sys.modules['torch'] = None\n"
"""As after a bare install, which brings neither; a None in sys.modules is a package that is not there."""


@needs_pyiqa
def test_beside_a_bare_install_pyiqa_knows_the_names_and_a_metric_says_what_to_install(installed):
    """pyiqa brings torch by itself."""
    create = "try:\n    pyiqa.create_metric('qsit-nano')\nexcept ModuleNotFoundError as error:\n    print(error)"
    done = installed.execute(NO_TRANSFORMERS + PRINT_NAMES + create)
    names, said = done.stdout.splitlines()[0], done.stdout.splitlines()[-1]
    assert names == NAMES, done.stderr
    assert said.startswith("engine 'torch' needs transformers") and 'pip install "qsit-plugin[torch]"' in said


def test_after_a_bare_install_python_starts_with_the_hook_and_a_score_names_both_commands(installed):
    score = "try:\n    qsit_plugin.load()\nexcept ModuleNotFoundError as error:\n    print(error)"
    done = installed.execute(NO_ENGINE + "print('qsit_pyiqa_hook' in sys.modules)\nimport qsit_plugin\n" + score)
    armed, said = done.stdout.splitlines()
    assert (armed, done.stderr) == ("True", "")
    assert 'pip install "qsit-plugin[onnx]"' in said and 'pip install "qsit-plugin[torch]"' in said


@needs_pyiqa
def test_pyiqa_imports_silently_when_only_the_start_up_files_are_left(wheel, tmp_path):
    environment = Environment.create(tmp_path / "env", linked=True).install(wheel)
    shutil.rmtree(environment.site_packages / "qsit_plugin")
    done = environment.execute("import pyiqa\nprint('psnr' in pyiqa.list_models())")
    assert done.stdout.splitlines() == ["True"]
    assert "qsit" not in done.stderr


@needs_pyiqa
def test_a_fault_of_ours_is_a_warning_and_pyiqa_works(wheel, tmp_path):
    environment = Environment.create(tmp_path / "env", linked=True).install(wheel)
    broken = environment.site_packages / "qsit_plugin" / "metric.py"
    broken.write_text("raise OSError('disk on fire')\n", encoding="utf-8")
    done = environment.execute("import pyiqa\nprint('psnr' in pyiqa.list_models())")
    assert done.stdout.splitlines() == ["True"]
    assert "RuntimeWarning: the qsit metrics could not be added to pyiqa: OSError('disk on fire')" in done.stderr


@needs_pyiqa
def test_the_pyiqa_command_lists_the_metrics(installed):
    done = installed.execute("import sys\nfrom pyiqa.pyiqa_cmd import main\nsys.argv = ['pyiqa', '-ls']\nmain()")
    assert "qsit-nano" in done.stdout, done.stderr
