"""The code stays in rooms that a reader can overlook: short files, small folders, imports without a circle."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {"qsit_plugin": "qsit_plugin"} | {name: f"qsit_plugin.{name}" for name in ("nodes", "training", "weights")}
FILES = {
    ".".join([package, *path.relative_to(ROOT / folder).with_suffix("").parts]).removesuffix(".__init__"): path
    for folder, package in PACKAGES.items()
    for path in sorted((ROOT / folder).rglob("*.py"))
}


def imported(statements: list[ast.stmt], package: str) -> Iterator[str]:
    """What a module imports when it is imported itself; not within functions, nor for type checkers only."""
    for statement in statements:
        if isinstance(statement, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) + 1 - statement.level] if statement.level else []
            base = ".".join([*above, *([statement.module] if statement.module else [])])
            yield from (f"{base}.{name.name}" if f"{base}.{name.name}" in FILES else base for name in statement.names)
        elif isinstance(statement, ast.Import):
            yield from (name.name for name in statement.names)
        elif isinstance(statement, ast.Try) or (
            isinstance(statement, ast.If) and "TYPE_CHECKING" not in ast.unparse(statement.test)
        ):
            yield from imported([*statement.body, *statement.orelse], package)


def test_no_module_imports_itself_through_others() -> None:
    graph = {}
    for name, path in FILES.items():
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        found = set(imported(ast.parse(path.read_text(encoding="utf-8")).body, package))
        graph[name] = (found & FILES.keys()) - {name}
    assert any("training.loop" in name for name in graph["qsit_plugin.training.run_log"])  # imports are seen at all
    list(TopologicalSorter(graph).static_order())  # raises CycleError, which names the circle


@pytest.mark.parametrize("folder", PACKAGES)
def test_no_file_has_more_than_400_lines(folder: str) -> None:
    long = [path for path in (ROOT / folder).rglob("*.py") if len(path.read_text(encoding="utf-8").splitlines()) > 400]
    assert long == []


@pytest.mark.parametrize("folder", ["qsit_plugin", "training"])
def test_no_folder_has_more_than_20_modules(folder: str) -> None:
    folders = {path.parent for path in (ROOT / folder).rglob("*.py")}
    assert [place for place in folders if len(list(place.glob("*.py"))) > 20] == []
