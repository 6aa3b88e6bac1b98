"""The API pages name what is public, and what they name is there. Their text is made from the docstrings by mkdocs."""

import ast
import pkgutil
import re
from pathlib import Path

import pytest

import qsit_plugin

CHECKOUT = Path(__file__).resolve().parents[2]
PAGES = sorted((CHECKOUT / "docs" / "api").glob("*.md"))
NAMED = [name for page in PAGES for name in re.findall(r"^::: ([\w.]+)$", page.read_text(encoding="utf-8"), re.M)]
FOLDERS = ("qsit_plugin", "nodes", "training", "weights")


@pytest.mark.parametrize("name", qsit_plugin.__all__)
def test_every_public_name_is_on_an_api_page(name):
    assert name in {path.rpartition(".")[2] for path in NAMED}


@pytest.mark.parametrize("path", NAMED)
def test_every_name_on_an_api_page_is_there(path):
    try:
        pkgutil.resolve_name(path)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("qsit_plugin"):
            raise
        pytest.skip(f"{error.name} is not installed")


def test_no_name_is_on_two_pages():
    assert len(set(NAMED)) == len(NAMED)


def test_docstrings_are_markdown_without_sphinx_roles():
    """``:data:`X``` would stand on the page as it is."""
    found = [
        f"{path.relative_to(CHECKOUT)}:{node.lineno}"
        for folder in FOLDERS
        for path in sorted((CHECKOUT / folder).rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        if re.search(r":\w+:`", node.value.value)
    ]
    assert not found
