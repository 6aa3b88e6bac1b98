"""Makes ``import pyiqa; pyiqa.create_metric("qsit-nano")`` work with no other import.

pyiqa looks a metric's name up before it asks any plugin, so the names must be there as soon as pyiqa is. This module
puts a finder first in ``sys.meta_path`` that waits for the import of pyiqa, lets it happen as always and then imports
``qsit_plugin.metric``, which adds the names. Importing this module arms it. That happens in two places:

- at the interpreter's start, in an installed environment: the ``.pth`` file there imports a copy of this file named
  ``qsit_pyiqa_hook`` (see build_backend/qsit_build.py);
- on ``import qsit_plugin``.

``QSIT_NO_PYIQA_HOOK=1`` switches both off; ``qsit_plugin.register()`` still works. Standard library only, and nothing
heavier than ``sys`` and ``os`` until pyiqa is imported: every start of Python pays for it. Without pyiqa it is silent.
"""

import os
import sys

SWITCH = "QSIT_NO_PYIQA_HOOK"


def register():
    """Make the metrics ``qsit``, ``qsit-mini`` and ``qsit-nano`` known to pyiqa: now, or when it is imported later.

    Calling it again changes nothing.
    """
    if sys.modules.get("pyiqa") is not None:
        _add_metrics()
    elif not any(type(finder).__name__ == PyiqaFinder.__name__ for finder in sys.meta_path):  # by name: of either copy
        sys.meta_path.insert(0, PyiqaFinder())


class PyiqaFinder:
    """Asks the other finders for pyiqa and wraps the loader that they return."""

    def find_spec(self, name, path=None, target=None):
        if name != "pyiqa":
            return None
        for finder in sys.meta_path:
            find = None if finder is self else getattr(finder, "find_spec", None)
            spec = find(name, path, target) if find else None
            if spec is not None:
                # Looking pyiqa up (importlib.util.find_spec) ends here and disarms nothing; only running it does.
                if hasattr(spec.loader, "exec_module"):
                    spec.loader = _Loader(spec.loader, self)
                return spec
        return None


class _Loader:
    """Delegates to the real loader of pyiqa, and adds the metrics after the module has run."""

    def __init__(self, loader, finder):
        self._loader = loader
        self._finder = finder

    def __getattr__(self, name):
        return getattr(self._loader, name)

    def exec_module(self, module):
        module.__loader__ = module.__spec__.loader = self._loader  # pyiqa shall look as it does without us
        self._loader.exec_module(module)
        if self._finder in sys.meta_path:
            sys.meta_path.remove(self._finder)
        _add_metrics_or_warn()


def _add_metrics():
    import importlib

    importlib.import_module("qsit_plugin.metric")


def _add_metrics_or_warn():
    """An error of ours must not break ``import pyiqa``; it becomes a warning."""
    try:
        _add_metrics()
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and error.name == "qsit_plugin":
            return  # the package was removed and only the start-up file is left
        import warnings

        warnings.warn(f"the qsit metrics could not be added to pyiqa: {error!r}", RuntimeWarning, stacklevel=2)


if os.environ.get(SWITCH, "") in ("", "0"):
    if sys.modules.get("pyiqa") is not None:
        _add_metrics_or_warn()
    else:
        register()
