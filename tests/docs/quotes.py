"""What the documents quote of the code: commands with their options, files, names, links and settings."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import typer

from qsit_plugin.cli.app import app

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = {"nodes": "nodes", "training": "training", "weights": "weights"}
"""Folders that are installed below qsit_plugin, and lie beside it in the checkout."""

FENCE = re.compile(r"^```.*?\n(.*?)^```", re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"^(?:    .*\n)+", re.MULTILINE)
INLINE = re.compile(r"(?<!`)`([^`]+)`(?!`)")
OPTION = re.compile(r"(?<![\w-])--?[a-z][\w-]*")


def documents() -> list[Path]:
    """Every Markdown file of the project but the results that a program wrote."""
    places = ("*.md", "docs/*.md", "training/**/*.md", "weights/**/*.md", "benchmarks/**/*.md", "web/docs/**/*.md")
    found = [path for place in (*places, "qsit_plugin/**/*.md") for path in ROOT.glob(place)]
    return sorted(path for path in found if path.parent.name != "results")


def text_of(document: Path) -> str:
    """The text; of the changelog without what was removed, which names what is there no more."""
    return re.sub(r"^### Removed\n.*?(?=^##|\Z)", "", document.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Quote:
    """A piece of code in a document. ``block``: it stands on separate lines, not within a sentence."""

    document: Path
    text: str
    block: bool

    def __str__(self) -> str:
        return f"{self.document.relative_to(ROOT)}: {self.text}"


@cache
def quotes() -> tuple[Quote, ...]:
    """All code in all documents: inline pieces whole, blocks by lines, with continued lines joined."""
    found = []
    for document in documents():
        text = text_of(document)
        blocks = FENCE.findall(text)
        rest = FENCE.sub("\n", text)
        blocks += INDENTED.findall(rest)
        rest = INDENTED.sub("\n", rest)
        found += [Quote(document, " ".join(piece.split()), False) for piece in INLINE.findall(rest)]
        for block in blocks:
            lines = re.sub(r"\\\n\s*", " ", block).splitlines()
            found += [Quote(document, line.strip(), True) for line in lines if line.strip()]
    return tuple(found)


def commands(program: str) -> Iterator[tuple[Quote, list[str]]]:
    """(where, words after the program) of every command of that program, without what a comment or a pipe adds."""
    for quote in quotes():
        for part in re.split(r"&&|\|(?!\|)| # |;", quote.text):
            words = part.removeprefix("$ ").replace("\\", " ").split()
            if words[:1] == [program] and (quote.block or len(words) > 1):
                yield quote, words[1:]


def options(words: list[str]) -> list[str]:
    return [word.split("=")[0] for word in words if OPTION.fullmatch(word.split("=")[0])]


def resolved(words: list[str]) -> tuple[Any, list[str], bool]:
    """(the command that the words lead to, the words that are left, whether the sub-command is there)."""
    command = typer.main.get_command(app)
    while words and hasattr(command, "commands"):
        if words[0] in command.commands:
            command, words = command.commands[words[0]], words[1:]
        else:
            return command, words, words[0] in ("...", "…") or words[0].startswith("-")
    return command, words, True


def known(command: Any) -> set[str]:
    """The options of a command."""
    return {o for p in command.params for o in (*p.opts, *p.secondary_opts)} | {"--help", "-h"}


@cache
def files() -> frozenset[str]:
    """Every file below the folders that belong to the project, relative to the root, with "/"."""
    tops = ("qsit_plugin", *FOLDERS.values(), "benchmarks", "build_backend", "docs", "examples", "example_workflows")
    found = (path for top in (*tops, "locales", "tests", "web") for path in (ROOT / top).rglob("*") if path.is_file())
    return frozenset(path.relative_to(ROOT).as_posix() for path in found if "__pycache__" not in path.parts)


@cache
def sources() -> str:
    """All Python of the project in one text, without the tests but with the fuzzer, which is run by hand."""
    names = (name for name in sorted(files()) if name.endswith(".py"))
    return "\n".join((ROOT / n).read_text("utf-8") for n in names if n.startswith("tests/fuzz/") or n[:6] != "tests/")


def module_file(name: str) -> Path | None:
    """The source of ``qsit_plugin.a.b``, wherever it lies in the checkout; None where there is none."""
    parts = name.split(".")
    if len(parts) > 1 and parts[1] in FOLDERS:
        parts = [FOLDERS[parts[1]], *parts[2:]]
    path = ROOT.joinpath(*parts)
    return next((p for p in (path.with_suffix(".py"), path / "__init__.py") if p.is_file()), None)


@cache
def names_in(path: Path) -> frozenset[str]:
    """What a module defines or imports at its top level, and "Class.attribute" for what its classes hold."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            found |= {alias.asname or alias.name for alias in node.names}
    for node in ast.parse(path.read_text("utf-8")).body:
        found |= _defined(node)
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{name}" for inner in node.body for name in _defined(inner)}
    return frozenset(found)


def _defined(node: ast.stmt) -> set[str]:
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return {node.name}
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return {target.id for target in targets if isinstance(target, ast.Name)}


def settings_of(path: Path, name: str) -> list[str]:
    """The settings that a class of them has, without importing it: its library may be missing."""
    (kind,) = (node for node in ast.parse(path.read_text("utf-8")).body if getattr(node, "name", "") == name)
    fields = [node for node in kind.body if isinstance(node, ast.AnnAssign)]
    return [ast.unparse(node.target) for node in fields if "ClassVar" not in ast.unparse(node.annotation)]


def found(name: str) -> bool:
    """Whether ``qsit_plugin.a.b`` is a module, or a name in one."""
    if module_file(name) or (ROOT / name.replace(".", "/")).is_dir():
        return True
    parts = name.split(".")
    for at in range(len(parts) - 1, 0, -1):
        path = module_file(".".join(parts[:at]))
        if path is not None:
            return ".".join(parts[at:]) in names_in(path)
    return False


def anchors(document: Path) -> set[str]:
    """The anchors that a page of Markdown has, as GitHub makes them of its headings."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", document.read_text("utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
