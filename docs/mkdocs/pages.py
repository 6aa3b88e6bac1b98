"""Gives the site the layout of the repository, so that the links between its files hold as they stand.

A hook of mkdocs, named in mkdocs.yml. mkdocs knows only what is in docs/, so ``../README.md`` would lead nowhere: here
docs/ is a folder of the site beside the others, and the README is its first page.
"""

from __future__ import annotations

from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("*.md", "docs/**/*.md", "benchmarks/**/*.md", "training/nano/README.md", "weights/nano/README.md")
LINKED = (
    "docs/images/*",
    "docs/mkdocs/*.css",
    "benchmarks/**/*.png",
    "training/nano/curves.csv",
    "training/nano/recipe.yaml",
)
"""Pictures and files that pages link to; one that is missing here is a warning, which ends a strict build."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for file in [file for file in files if file.src_dir == config.docs_dir]:
        files.remove(file)
    for path in sorted({path for pattern in (*PAGES, *LINKED) for path in ROOT.glob(pattern)}):
        name = path.relative_to(ROOT).as_posix()
        files.append(File(name, str(ROOT), config.site_dir, config.use_directory_urls))
    return files
