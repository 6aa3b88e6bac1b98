"""The version of this package.

``pyproject.toml`` states it, once and as a plain string: ComfyUI's manager reads it there and knows no computed one. In
a source tree (a checkout, a clone in ComfyUI's ``custom_nodes/``) that file is read, installed or not: an editable
install keeps the version of the day it was made. Elsewhere the metadata of the installed package has it.
"""

from pathlib import Path

from . import _in_source_tree, _root


def _stated() -> str:
    if _in_source_tree:
        import tomllib

        return tomllib.loads(Path(_root, "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    from importlib import metadata

    return metadata.version("qsit-plugin")


__version__: str = _stated()
"""The version, as ``pyproject.toml`` states it."""
