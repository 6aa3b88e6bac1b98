"""Shows griffe the package as it is installed: qsit_plugin.training and others, whose folders lie beside qsit_plugin.

An extension of griffe, named in mkdocs.yml. It reads source and imports nothing of it.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import griffe

ROOT = Path(__file__).resolve().parents[2]


class InstalledLayout(griffe.Extension):
    """Adds what ``[tool.setuptools.package-dir]`` maps into the package from elsewhere."""

    def on_package(self, *, pkg: griffe.Module, loader: griffe.GriffeLoader, **kwargs: Any) -> None:
        setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
        for name, folder in setuptools["package-dir"].items():
            parent, _, child = name.rpartition(".")
            if parent == pkg.path:
                _add(pkg, child, ROOT / folder, loader)


def _add(parent: griffe.Module, name: str, path: Path, loader: griffe.GriffeLoader) -> None:
    """Add a module, or the package in a folder with all that it holds; a folder without ``__init__.py`` is none."""
    file = path / "__init__.py" if path.is_dir() else path
    if not file.is_file():
        return
    code = file.read_text(encoding="utf-8")
    loader.lines_collection[file] = code.splitlines()
    module = griffe.visit(
        name,
        filepath=file,
        code=code,
        parent=parent,
        extensions=loader.extensions,
        docstring_parser=loader.docstring_parser,
        docstring_options=loader.docstring_options,
        lines_collection=loader.lines_collection,
        modules_collection=loader.modules_collection,
    )
    parent.set_member(name, module)
    if path.is_dir():
        for below in sorted(path.iterdir()):
            if (below.suffix == ".py" and below != file) or below.is_dir():
                _add(module, below.stem, below, loader)
