"""One base for every error that is raised on purpose."""

from __future__ import annotations

import ast
import builtins
from importlib.util import find_spec
from pathlib import Path

import qsit_plugin as qsit

BUILT_IN = {
    name
    for name, kind in vars(builtins).items()
    if isinstance(kind, type) and issubclass(kind, Exception) and not issubclass(kind, Warning)
}


def test_no_error_of_the_package_has_a_built_in_base_alone():
    """By source: an import would load every room. ``errors`` defines the base."""
    alone = []
    for folder in ("qsit_plugin", *(f"qsit_plugin.{room}" for room in ("nodes", "training", "weights"))):
        for path in Path(find_spec(folder).origin).parent.rglob("*.py"):
            for found in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(found, ast.ClassDef) and found.name != qsit.QSiTError.__name__:
                    bases = [base.id for base in found.bases if isinstance(base, ast.Name)]
                    if bases and all(name in BUILT_IN for name in bases):
                        alone.append(f"{path.name}: {found.name}")
    assert alone == []


def test_what_a_file_of_rows_raises_has_the_base_and_its_number():
    from qsit_plugin.row_file import CutShort, FileBusy

    full = CutShort("rows.csv", OSError(28, "no space"))
    assert isinstance(full, qsit.QSiTError) and isinstance(full, OSError) and full.errno == 28
    busy = FileBusy("rows.csv")
    assert isinstance(busy, qsit.QSiTError) and str(busy).startswith("rows.csv is being written by another run")
